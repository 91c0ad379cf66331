"""What does a run use that nobody set?"""
