"""vLLM's room: what it supports on which card, its start-up memory, how it is launched and driven."""

from memserve.plan.room.packaged import PackagedRoom

backend = PackagedRoom("vllm", __name__)
