"""The fixtures that tests of HTTP rooms share."""

from faulty_fixtures import open_generator, quick, server, slept

__all__ = ["open_generator", "quick", "server", "slept"]
