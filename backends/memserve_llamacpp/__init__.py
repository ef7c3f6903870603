"""llama.cpp's room: GGUF files, split by layers."""

from memserve.plan.room.packaged import PackagedRoom

backend = PackagedRoom("llamacpp", __name__)
