"""An engine's own options, given as keywords or as words (`--options k=v`): unknown names are refused."""

import ast
import math
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from memserve.errors import InvalidInput, UnknownName, Unsupported

_WORDS = {"true": True, "false": False, "none": None}


def named(backend: str, given: Mapping[str, Any], known: Collection[str], *,
          spellings: Mapping[str, str] | None = None) -> dict[str, Any]:  # fmt: skip
    """The options under the engine's own names; one that it does not have is refused with the nearest."""
    found: dict[str, Any] = {}
    for raw, value in given.items():
        name = (spellings or {}).get(raw, raw)
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)[:40])}"
            raise Unsupported(backend, f"the option {raw!r}", hint=meant)
        found[name] = value
    return found


P = ParamSpec("P")
T = TypeVar("T")


def spelled(function: Callable[P, T]) -> Callable[P, T]:
    """A function that says which of its keywords is meant where a caller's is not known."""
    code = function.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    @wraps(function)
    def called(*given: P.args, **words: P.kwargs) -> T:
        wrong = next((name for name in words if name not in known), None)
        if wrong is not None:
            near = get_close_matches(wrong, known, n=1)
            meant = f": did you mean {near[0]}?" if near else f" (known: {', '.join(known)})"
            raise UnknownName(f"{function.__name__}() takes no {wrong!r}{meant}", suggestions=near)
        return function(*given, **words)

    return called


def value(given: Any) -> Any:
    """What a word stands for: a number, true, false, none, a list, or itself."""
    if not isinstance(given, str):
        return given
    if given.lower() in _WORDS:
        return _WORDS[given.lower()]
    try:
        found = ast.literal_eval(given)
    except (ValueError, SyntaxError):
        return given
    return finite("an option", found)


def finite(name: str, given: Any) -> Any:
    """The value, unless a number in it is nan or infinite."""
    if isinstance(given, float) and not math.isfinite(given):
        raise InvalidInput(f"{name} holds {given}: a finite number is needed")
    inside = (
        given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    )
    for one in inside:
        finite(name, one)
    return given
