"""Finds backends through the entry-point group `memserve.backends`; ours register as anybody's do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, reduce
from importlib import import_module
from importlib.machinery import PathFinder
from os import scandir
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

from memserve import files
from memserve.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from memserve.protocol import Backend

_P = ParamSpec("_P")
_T = TypeVar("_T")
GROUP = "memserve.backends"
_REMEMBERED: list[Any] = []
_METADATA = (".dist-info", ".egg-info")


class Entry(NamedTuple):
    """One line of an installed distribution's entry_points.txt: `name = module:attribute`."""

    name: str
    value: str

    @property
    def module(self) -> str:
        """The module that holds the backend."""
        return self.value.partition(":")[0].strip()

    def load(self) -> Any:
        """The object itself."""
        attributes = self.value.partition(":")[2].partition("[")[0].split(".")
        return reduce(getattr, (word.strip() for word in attributes if word), import_module(self.module))


def remembered(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """`functools.cache` for what depends on the installed backends: `forget` empties it."""
    kept = cache(function)
    _REMEMBERED.append(kept)
    return cast("Callable[_P, _T]", kept)


@remembered
def _entries() -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for text in _declarations():
        for entry in _of_group(text):
            rival = found.setdefault(entry.name, entry)
            if rival.value != entry.value:
                raise InvalidInput(
                    f"two installed packages claim the backend {entry.name!r}:"
                    f" {rival.value} and {entry.value}",
                    hint="uninstall one of them",
                )
    return found


def _declarations() -> Iterator[str]:
    """Every distribution's entry_points.txt, the first on the path winning.

    Read here and not through importlib.metadata, whose import alone (email, zipfile, csv) would take an
    eighth of the planner's start-up.
    """
    for folder in metadata_folders():
        with suppress(OSError, UnicodeDecodeError):
            yield files.text(f"{folder}/entry_points.txt")


def metadata_folders() -> Iterator[str]:
    """Where installed distributions say what they are, the first on the path winning."""
    seen: set[str] = set()
    for place in dict.fromkeys(sys.path):
        with suppress(OSError), scandir(place or ".") as items:
            found = [item for item in items if item.name.endswith(_METADATA)]
            for item in found:
                distribution = item.name.split("-")[0].lower()
                if distribution not in seen:
                    seen.add(distribution)
                    yield item.path


def _of_group(text: str) -> Iterator[Entry]:
    section = ""
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("["):
            section = words.strip("[] ")
        elif section == GROUP and "=" in words and not words.startswith(("#", ";")):
            name, _, value = words.partition("=")
            yield Entry(name.strip(), value.strip())


def entries() -> tuple[Entry, ...]:
    """Every installed backend's line."""
    return tuple(_entries().values())


def names() -> tuple[str, ...]:
    """Every installed backend's name."""
    return tuple(sorted(_entries()))


def home(name: str) -> str | None:
    """The package that a backend comes from, without importing it; None where there is no such backend."""
    entry = _entries().get(name)
    return None if entry is None else entry.module.split(".")[0]


@remembered
def files_of(package: str) -> tuple[str, ...]:
    """The files in a backend's folder, by their paths; its package is not imported."""
    spec = PathFinder.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return tuple(f"{folder}/{file}" for folder in folders for file in files.names(folder))


def tables(name: str) -> Iterator[str]:
    """The files of that name in the folders of installed backends: what they add to the core's facts."""
    for package in dict.fromkeys(home(backend) or "" for backend in names()):
        yield from (file for file in files_of(package) if file.endswith(f"/{name}"))


@remembered
def find(name: str) -> Backend:
    """The backend of that name; its engine need not be installed."""
    entry = _entries().get(name)
    if entry is None:
        from difflib import get_close_matches

        near = tuple(get_close_matches(name, names(), n=3))
        meant = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names())}"
        raise UnknownName(f"unknown backend {name!r}: {meant}", suggestions=near)
    return cast("Backend", entry.load())


def is_own_name(backend: str | None, model: object) -> bool:
    """Whether a backend gives a model of its own this name, which may be another's in the catalogue."""
    with suppress(UnknownName):
        return str(model).lower() in getattr(find(backend or ""), "own_names", ())
    return False


def forget() -> None:
    """Look again, after a package was installed in this process."""
    for answers in _REMEMBERED:
        answers.cache_clear()
    sys.path_importer_cache.clear()
