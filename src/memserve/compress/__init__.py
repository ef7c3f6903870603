"""Makes the checkpoint that a plan names, and judges it.  memserve compress MODEL --to METHOD"""
