"""The same run on many machines, over Ray Data."""
