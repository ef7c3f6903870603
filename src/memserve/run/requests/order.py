"""The order of asking: requests that share a prefix follow each other, so that prefix caches hit.

Only what was read ahead is reordered, and requests that share nothing keep their order.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from memserve.protocol import Raw
from memserve.run.requests.item import Item, text_of

BLOCK = 512
"""Characters that must agree before it pays to bring two requests together: eight KV blocks or so."""

Keyed = tuple["str | tuple[int, ...]", "Item"]


def arrange(items: Iterable[Item]) -> list[Item]:
    """The same items, grouped by their shared prefixes at every depth; groups by first appearance."""
    return [item for _, item in _arranged([(text(item.request.prompt), item) for item in items], 0)]


def text(prompt: Any) -> Any:
    """What an engine sees first to last, as something that can be sliced and compared."""
    if isinstance(prompt, (str, Raw)):
        return prompt if isinstance(prompt, str) else prompt.text
    if isinstance(prompt[0], int):
        return tuple(prompt)
    return "\0".join(text_of(message) for message in prompt)


def _arranged(keyed: Sequence[Keyed], depth: int) -> Iterator[Keyed]:
    groups: dict[Any, list[Keyed]] = {}
    for place, pair in enumerate(keyed):
        block = pair[0][depth : depth + BLOCK]
        groups.setdefault(block if len(block) == BLOCK else place, []).append(pair)
    for group in groups.values():
        if len(group) > 2:
            yield from _arranged(group, shared([words for words, _ in group], depth + BLOCK))
        else:
            yield from group


def shared(texts: Sequence[Any], known: int) -> int:
    """The length of the prefix that all texts share, of which `known` are known to agree."""
    low, high = min(texts), max(texts)  # whatever these two share, all share
    step = BLOCK
    while low[known : known + step] == high[known : known + step] and known < len(low):
        known += step
        step *= 2
    while step > 1:
        step //= 2
        if low[known : known + step] == high[known : known + step]:
            known += step
    return min(known, len(low))
