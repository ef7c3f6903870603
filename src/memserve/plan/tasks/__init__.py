"""What one call of `python -m memserve.plan` can ask for, each task in a file."""
