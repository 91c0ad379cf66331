"""Text files and built-in tasks become a data folder."""
