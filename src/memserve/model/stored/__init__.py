"""What files hold: headers of safetensors and GGUF, and how weights are quantized."""
