"""Opens data sets and tokenizers, and makes batches."""
