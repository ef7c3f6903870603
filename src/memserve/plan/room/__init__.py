"""What a backend's room gives the planner, and what rooms share in giving it."""
