"""Starts what a plan names, watches it, stops it.  python -m memserve.serve PLAN.json"""
