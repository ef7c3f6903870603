"""SGLang's room: what it supports on which card, its memory, how it is launched and driven."""

from memserve.plan.packaged import PackagedRoom

backend = PackagedRoom("sglang", __name__)
