"""Puts it together: candidates -> verdicts -> Plan.  python -m memserve.plan MODEL --gpus SPEC"""
