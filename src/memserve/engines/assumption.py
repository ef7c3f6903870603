"""What was not said and had to be taken from somewhere: stated beside every figure that rests on it."""

from typing import NamedTuple


class Assumption(NamedTuple):
    """One value that nobody stated."""

    name: str
    value: str | int | float | bool
    source: str
    """Where it is from, or how it was guessed."""
