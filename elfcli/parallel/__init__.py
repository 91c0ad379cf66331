"""Several processes and devices: connecting them, meshes, agreement, detecting dead peers, stop requests."""
