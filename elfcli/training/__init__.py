"""Training: starting and resuming runs, the loop, the step, the optimizer, logs."""
