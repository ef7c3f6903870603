"""Numbers that callers pass, checked in one place: a wrong one is an `InvalidInput`, never a traceback."""

from numbers import Real

from memserve.errors import InvalidInput

MOST_TOKENS = 1e12
"""Beyond it no request, no cache and no float is meant."""
MOST_CARDS = 1_000_000


def number(name: str, value: object, *, least: float = 0.0, above: bool = False,
           most: float = float("inf")) -> float:  # fmt: skip
    """The value as a float if it is a number from `least` (or `above` it) to `most`."""
    found = _float(value)
    if found is None or not least <= found < float("inf") or (above and found == least):
        bounds = "a positive number" if above else "zero or a positive number"
        raise InvalidInput(f"{name} must be {bounds}, not {_shown(value)}")
    if found > most:
        raise InvalidInput(f"{name} must be at most {most:g}, not {_shown(value)}")
    return found


def degree(name: str, value: object, *, needed: bool = False) -> None:
    """Refuses what is no whole number of cards, stages or sequences; None leaves the choice open."""
    if value is None and not needed:
        return
    found = _float(value)
    if found is None or not 1 <= found <= MOST_CARDS or found != int(found):
        raise InvalidInput(f"{name} must be a whole number above 0, not {_shown(value)}")


def word(name: str, value: object, *, needed: bool = False) -> None:
    """Refuses what is no word; None leaves the choice open unless the word is needed."""
    if (value is None and not needed) or isinstance(value, str):
        return
    raise InvalidInput(f"{name} must be a word, not {_shown(value)}")


def _shown(value: object) -> str:
    """A value as an error shows it; numbers too long to print are cut by their kind."""
    try:
        return repr(value)[:40]
    except ValueError:
        return f"a {type(value).__name__} of thousands of digits"


def _float(value: object) -> float | None:
    if not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
