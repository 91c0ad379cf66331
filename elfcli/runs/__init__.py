"""A run on disk: its folder, checkpoints, seals, lock and training state."""
