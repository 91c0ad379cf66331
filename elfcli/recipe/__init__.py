"""What does a run use that nobody set? One pipeline from the user's settings to the final ones; token vectors."""
