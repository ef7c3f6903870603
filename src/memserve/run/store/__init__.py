"""What survives a crash: answers, failures, the cache."""
