"""Data: reading corpora, tokenizing, opening data sets, batches, and access to the Hub."""
