"""Sampling from trained models and scoring texts: BLEU, ROUGE, generative perplexity."""
