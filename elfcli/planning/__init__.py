"""Estimates the memory, FLOPs and time of a run on hardware that you do not need to have."""
