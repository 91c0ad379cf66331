"""A model in memory, sampling settings, sources, generation and traces."""
