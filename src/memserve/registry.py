"""Finds backends through the entry-point group `memserve.backends`; ours register as a stranger's do."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from memserve.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from memserve.protocol import Backend

GROUP = "memserve.backends"


@cache
def _entries() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        rival = found.setdefault(entry.name, entry)
        if rival.value != entry.value:
            raise InvalidInput(
                f"two installed packages claim the backend {entry.name!r}: {rival.value} and {entry.value}",
                hint="uninstall one of them",
            )
    return found


def names() -> tuple[str, ...]:
    """Every installed backend's name."""
    return tuple(sorted(_entries()))


@cache
def find(name: str) -> Backend:
    """The backend of that name; its engine need not be installed."""
    entry = _entries().get(name)
    if entry is None:
        near = tuple(get_close_matches(name, names(), n=3))
        meant = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names())}"
        raise UnknownName(f"unknown backend {name!r}: {meant}", suggestions=near)
    return cast("Backend", entry.load())


def forget() -> None:
    """Look again, after a package was installed in this process."""
    _entries.cache_clear()
    find.cache_clear()
    sys.path_importer_cache.clear()
