"""llama.cpp's room: GGUF files, split by layers."""

from memserve.plan.packaged import PackagedRoom

backend = PackagedRoom("llamacpp", __name__)
