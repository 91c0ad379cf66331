"""Several processes and devices: joining them, meshes, agreement, watching for dead peers, stop requests."""
