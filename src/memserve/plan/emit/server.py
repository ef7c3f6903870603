"""What a file must say of a plan's server: image, address, port, health, cards, secrets."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.server import Program, ServerFacts
from memserve.errors import InvalidInput
from memserve.files import expanded
from memserve.hardware import catalogue
from memserve.hardware.machine import Access
from memserve.missing import origin
from memserve.plan.plan import Plan

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What YAML 1.1 takes for something else than a name."""
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF)}


def dump(value: Any) -> str:
    """A document."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    pairs = value.items() if isinstance(value, dict) else (("-", part) for part in value)
    for name, part in pairs:
        head = "-" if isinstance(value, list) else f"{_name(name)}:"
        if not isinstance(part, (dict, list)) or not part:
            yield f"{indent}{head} {_scalar(part)}"
        elif head == "-":
            first, *rest = _lines(part, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}{head}"
            yield from _lines(part, indent + "  ")


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else _scalar(name)


def _scalar(value: Any) -> str:
    """JSON, without the few characters that JSON allows and YAML does not."""
    return json.dumps(value, ensure_ascii=False).translate(_CONTROLS)


LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
PYTHON = "python:3.12-slim"
SECRETS = "memserve.env"
"""A file beside the emitted one: HF_TOKEN=..., the server's key; never part of it."""
_NODE = re.compile(r"\bNODE_(\d+)\b")
_PULL = "docker pull "
_BUILT = re.compile(r"compiler|git clone")
"""What an install line or its needs say of an engine that plain Python's image cannot install."""


@dataclass(frozen=True)
class Server:
    """A plan as something that listens."""

    plan: Plan

    @cached_property
    def facts(self) -> ServerFacts:
        """What its backend tells."""
        found = server_of(installed.named(self.plan.backend))
        if found is None:
            raise InvalidInput(f"{self.plan.backend} does not tell how its server is started")
        return found

    @property
    def program(self) -> Program:
        """The one that the plan's command starts."""
        return self.facts.started_by(self.plan.command) or self.facts.program

    @property
    def access(self) -> Access:
        """How its cards are counted and handed in."""
        return catalogue.access(self.plan.machine.card.vendor)

    @property
    def keys(self) -> str:
        """The variables that may carry secrets, as a comment names them."""
        return ", ".join(name for name in ("HF_TOKEN", self.program.key_env) if name)

    @property
    def image(self) -> str:
        """A container image of that release; plain Python where none is known."""
        plan, card = self.plan, self.plan.machine.card
        if plan.install.startswith(_PULL):
            return plan.install.removeprefix(_PULL)
        named = self.facts.images.get(card.vendor)
        if named is None:
            return PYTHON
        endings = self.facts.suffixes.items()
        ending = next((end for name, end in endings if card.name.upper().startswith(name)), "")
        return str(named).format(version=plan.engine_version) + ending

    @property
    def bare(self) -> bool:
        """The image holds no engine: the install line must run first."""
        return self.image == PYTHON

    @property
    def install(self) -> str:
        """The install line on another machine: it has no checkout of this one, but the release."""
        edits, folder, _ = origin()
        return self.plan.install.replace(f'{edits}"{folder}', '"memserve')

    def started_by(self, form: str) -> None:
        """Raises where a file starts nothing: cards that nobody hands in, an engine that must be compiled."""
        card, own = self.plan.machine.card, "start the plan's own command, or memserve serve PLAN.json"
        if card.vendor != "cpu" and self.access == Access():
            raise InvalidInput(f"--emit {form}: {card.name} is not handed to containers and jobs", hint=own)
        notes = self.plan.launch.notes if self.plan.launch else ()
        if form != "slurm" and self.bare and _BUILT.search(" ".join((self.plan.install, *notes))):
            words = f"--emit {form}: {self.plan.backend} has no image for {card.name} and must be compiled"
            raise InvalidInput(words, hint=own)

    @property
    def name(self) -> str:
        """A name that Docker, Slurm and Kubernetes accept."""
        words = re.sub(r"[^a-z0-9]+", "-", self.plan.model.id.rsplit("/", 1)[-1].lower()).strip("-")
        return f"memserve-{words}"[:40].rstrip("-")

    @property
    def folder(self) -> str | None:
        """The checkpoint's folder, if it is a local one that containers must see."""
        checkpoint = self.plan.checkpoint.id
        local = checkpoint.startswith(("/", ".", "~")) or Path(checkpoint).is_dir()
        return str(Path(expanded(checkpoint)).resolve()) if local else None

    def listening(self, command: tuple[str, ...], address: str) -> tuple[str, ...]:
        """The command with the address and the port that it listens on."""
        return self.program.listening(command, address, self.program.default_port)


def addressed(text: str, form: str) -> str:
    """A text in which NODE_0, NODE_1, ... became variables written in `form`."""
    return _NODE.sub(lambda found: form.format(found[0]), text)
