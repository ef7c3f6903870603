"""A toy engine, to show all that a package of your own may tell memserve."""

from memserve.engines.package import Package

backend = Package("toy", __name__)
