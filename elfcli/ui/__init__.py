"""Output to the terminal: progress, tables, and silencing libraries."""
