"""Judges a deployment by an engine's rows, before any byte is counted."""
