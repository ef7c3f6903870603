"""SGLang's room: what it supports on which card, its memory, how it is launched and driven."""

from memserve.engines.package import Package

backend = Package("sglang", __name__)
