"""llama.cpp and GGUF."""
