"""What a backend may tell the planner and the launcher, as protocols, and the values between them."""
