"""vLLM: what it supports on which card, its start-up memory, how it is launched and driven."""

from memserve.engines.package import Package

backend = Package("vllm", __name__)
