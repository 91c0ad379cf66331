"""Held-out examples of data without a validation split: its last rows, which training leaves out."""
