"""Export, model card, upload and mirroring."""
