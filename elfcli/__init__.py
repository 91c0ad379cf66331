"""elf: train, sample and score continuous diffusion language models (Embedded Language Flows)."""

__version__ = "0.2.0"
