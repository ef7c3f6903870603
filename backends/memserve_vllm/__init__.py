"""vLLM on CUDA and CPU."""
