"""Export, model card, push and mirror."""
