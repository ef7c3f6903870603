"""LMDeploy TurboMind: the other engine with Volta kernels."""

from memserve.engines.package import Package

backend = Package("lmdeploy", __name__, served=True)
