"""Terminal output: progress, tables, and silencing of libraries."""
