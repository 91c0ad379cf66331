"""What is wrong? Probe, held-out loss, measurements, verdicts and the installation."""
