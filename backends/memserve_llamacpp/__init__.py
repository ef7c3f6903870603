"""llama.cpp: GGUF files, split by layers."""

from memserve.engines.package import Package

backend = Package("llamacpp", __name__)
