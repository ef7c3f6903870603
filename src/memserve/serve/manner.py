"""How each engine's server is told where to listen and which key to ask for: rows of `manners.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from memserve.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Manner:
    """One engine's server."""

    name: str
    starts: tuple[str, ...]
    """Words that its command line contains, in this order."""
    host: str = "--host"
    port: str = "--port"
    key_env: str = ""
    """The variable that carries the key; preferred, because arguments are visible to every user."""
    key_flag: str = ""
    key_config: str = ""
    """Its flag for a YAML file of flags, which carries `key_flag` where no variable does."""
    health: str = "/health"
    api: str = "/v1"
    dialect: str = ""
    """The name under which the OpenAI room knows this server."""
    module: str = ""
    """`python -m` this, in place of the first word, to run in a chosen interpreter."""
    source: str = ""

    @property
    def package(self) -> str:
        """The package that must be importable for it to start."""
        return (self.module or self.starts[0]).split(".")[0]

    @property
    def asks_for_key(self) -> bool:
        """Whether it can be told to."""
        return bool(self.key_env or self.key_flag)


@cache
def manners() -> tuple[Manner, ...]:
    """Every row."""
    rows = json.loads(Path(__file__).with_name("manners.json").read_text(encoding="utf-8"))["rows"]
    return tuple(Manner(**{**row, "starts": tuple(row["starts"])}) for row in rows)


def manner_of(command: Sequence[str]) -> Manner:
    """The row whose words a command line contains."""
    for manner in manners():
        words = iter(part.rpartition("/")[2] for part in command)
        if all(word in words for word in manner.starts):
            return manner
    known = ", ".join(" ".join(manner.starts) for manner in manners())
    raise InvalidInput(f"no server is started by {' '.join(command)[:120]!r}", hint=f"known: {known}")
