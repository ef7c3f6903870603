"""Orders engine versions as people write them, so that any version finds the rows that speak of it."""

import re
from functools import lru_cache
from typing import TypeAlias

VersionKey: TypeAlias = tuple[int, ...]

NEWEST: VersionKey = (9999,)
_RELEASE = re.compile(r"v?(\d+(?:\.\d+)+)(?:\.?post(\d+))?", re.IGNORECASE)
_UNTAGGED = re.compile(r"v?0\.1\.dev\d+")
"""What setuptools-scm writes for a checkout without tags: a recent main branch, not release 0.1."""


@lru_cache(maxsize=1024)
def version_key(text: str | None) -> VersionKey:
    """A key that sorts releases; a pre-release counts as its release, the unreadable as newest."""
    found = None if text is None or _UNTAGGED.match(text.strip()) else _RELEASE.match(text.strip())
    if text is None or found is None or _year(found[1]):
        return NEWEST
    numbers = [int(part) for part in found[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    padded = (*numbers, 0, 0, 0, 0)[:4]
    return (*padded, int(found[2] or 0))


def _year(release: str) -> bool:
    return int(release.split(".")[0]) >= 2000


def within(version: str | None, since: str | None, before: str | None) -> bool:
    """Whether `version` lies in [since, before); an open end is None."""
    key = version_key(version)
    if since is not None and key < version_key(since):
        return False
    return before is None or key < version_key(before)
