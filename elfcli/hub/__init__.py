"""Trained models from other places and for others: reading, exporting, publishing."""
