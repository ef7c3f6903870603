"""How fast and how dear a run may be, and what a failure means for it."""
