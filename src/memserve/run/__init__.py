"""Long unattended runs: journal, order, limits, progress.  python -m memserve.run REQUESTS -o ANSWERS"""
