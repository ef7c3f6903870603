"""How long a step takes, cause by cause, and what a client sees of it."""
