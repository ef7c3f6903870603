"""The Ascend rooms: vLLM-Ascend, and MindIE beside it."""

from memserve.plan.room.packaged import PackagedRoom

backend = PackagedRoom("ascend", __name__)
mindie = PackagedRoom("mindie", __name__, part="mindie_")
