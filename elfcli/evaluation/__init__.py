"""Which sampling settings still need scores? The resumable loop, evaluation during training, the run report."""
