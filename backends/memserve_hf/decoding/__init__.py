"""The one loop that decodes all sequences in flight."""
