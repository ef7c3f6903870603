"""What runs in a library's own environment: nothing here needs more of memserve than this folder."""
