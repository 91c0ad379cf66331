"""Texts in, scores out: knows no ELF network and no run."""
