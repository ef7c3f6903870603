"""Seconds and money: a roofline with a cause for every term, workloads, cost."""
