"""How fast and how dear a run may be."""
