"""What was found about one very model, found once and shared by every candidate that asks."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from memserve.model.spec import ModelSpec

T = TypeVar("T")
KEPT = 64
"""Models of which something is remembered at a time."""
_memos: dict[int, tuple[ModelSpec, dict[Hashable, Any]]] = {}


def remembered(model: ModelSpec, key: Hashable, make: Callable[[], T]) -> T:
    """What `make` finds about this very object, made on first use."""
    known = _memos.get(id(model))
    if known is None or known[0] is not model:
        if len(_memos) >= KEPT:
            _memos.clear()
        known = _memos[id(model)] = (model, {})
    memo = known[1]
    if key not in memo:
        memo[key] = make()
    found: T = memo[key]
    return found
