"""SGLang's room: what it supports on which card, its memory, how it is launched and driven."""

from memserve.plan.room.packaged import PackagedRoom

backend = PackagedRoom("sglang", __name__)
