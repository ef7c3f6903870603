"""What is to be asked: read lazily, sorted, put in order."""
