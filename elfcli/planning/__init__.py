"""Estimates of what a run will cost on a machine that need not be at hand."""
