"""LMDeploy TurboMind's room: the other engine with Volta kernels."""

from memserve.plan.room.packaged import PackagedRoom

backend = PackagedRoom("lmdeploy", __name__)
