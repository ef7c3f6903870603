"""Reads requests lazily and sorts them: to be asked, answered already, or no requests at all."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from memserve.errors import InvalidInput
from memserve.run.requests import item as items
from memserve.run.requests import source
from memserve.run.requests.item import Item
from memserve.run.store.known_ids import Action, KnownIds
from memserve.run.store.results import Results


class Intake:
    """Everything that a run reads passes through here once."""

    def __init__(self, seen: KnownIds, results: Results, settings: Mapping[str, Any]) -> None:
        self._known = seen
        self._results = results
        self._settings = settings

    def pending(self, requests: Any,
                following: Callable[[Iterator[source.Entry]], source.Entry]) -> Iterator[Item]:  # fmt: skip
        """The items that have to be asked. `following` is next() for an iterator that may block."""
        entries = source.entries(requests)
        while True:
            try:
                index, line, value = following(entries)
            except StopIteration:
                return
            self._results.counts.total += 1
            item = self._read(index, line, value)
            if item is not None and not self._results.replayed(item):
                yield item

    def _read(self, index: int, line: int | None, value: Any) -> Item | None:
        try:
            if isinstance(value, InvalidInput):
                raise value
            item = items.read(value, index, self._settings)
        except InvalidInput as broken:
            self._results.malformed(index, line, broken, items.name_in(value))
            return None
        item, action = self._known.visit(item)
        return item if self._count(item, action) else None

    def _count(self, item: Item, action: Action) -> bool:
        """Whether the item is to be asked."""
        counts = self._results.counts
        if action is Action.ANSWERED:
            counts.resumed += 1
        elif action is Action.REPEATED:
            counts.repeated += 1
        elif action is Action.FAILED:
            counts.failed += 1
        elif action is Action.CLASH:
            self._results.failed(item, _clash(item))
        return action is Action.ASK


def _clash(item: Item) -> InvalidInput:
    return InvalidInput(
        f"id {str(item.id)[:60]!r} already stands for a request with another prompt or other settings",
        hint="give every request an id of its own; for changed requests name another output",
    )
