"""Reads checkpoints of any origin, and the files of encoders and judges."""
