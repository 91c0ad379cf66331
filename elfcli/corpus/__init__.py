"""Turns text files and built-in tasks into data folders."""
