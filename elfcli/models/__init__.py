"""The networks: ELF, the frozen T5 encoder, GPT-2 for perplexity, and their layers."""
