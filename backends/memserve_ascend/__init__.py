"""The Ascend backends: vLLM-Ascend, and MindIE beside it."""

from memserve.engines.package import Package

backend = Package("ascend", __name__)
mindie = Package("mindie", __name__, part="mindie_")
