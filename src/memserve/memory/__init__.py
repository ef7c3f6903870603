"""Bytes: weights per rank, KV cache, start-up peaks, training."""
