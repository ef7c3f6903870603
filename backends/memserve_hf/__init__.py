"""transformers' room: any model, any card, no paged cache."""

from memserve.plan.packaged import PackagedRoom

backend = PackagedRoom("hf", __name__)
