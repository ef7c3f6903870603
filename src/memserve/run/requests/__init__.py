"""What is to be asked: read lazily, put in order."""
