"""What a file must say of a plan's server: image, address, port, health, cards, secrets."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.files import expanded

if TYPE_CHECKING:
    from memserve.plan.plan import Plan

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
PYTHON = "python:3.12-slim"
SECRETS = "memserve.env"
"""A file beside the emitted one: HF_TOKEN=..., VLLM_API_KEY=...; never part of it."""
_NODE = re.compile(r"\bNODE_(\d+)\b")
_PULL = "docker pull "


@dataclass(frozen=True)
class Server:
    """A plan as something that listens."""

    plan: Plan

    @property
    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = rows().get(self.plan.backend, {})
        return row

    @property
    def port(self) -> int:
        """Where it listens by default."""
        return int(self._row.get("port", 8000))

    @property
    def health(self) -> str:
        """The path that answers once it serves."""
        return str(self._row.get("health", "/health"))

    @property
    def image(self) -> str:
        """A container image of that release; plain Python where none is known."""
        plan, card = self.plan, self.plan.machine.card
        if plan.install.startswith(_PULL):
            return plan.install.removeprefix(_PULL)
        named = self._row.get("images", {}).get(card.vendor)
        if named is None:
            return PYTHON
        suffixes = self._row.get("suffixes", {})
        ending = next((end for name, end in suffixes.items() if card.name.upper().startswith(name)), "")
        return str(named).format(version=plan.engine_version) + ending

    @property
    def bare(self) -> bool:
        """The image holds no engine: the install line must run first."""
        return self.image == PYTHON

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
        row = self._row
        if row.get("configured"):
            return command
        host, port = row.get("host_flag", "--host"), row.get("port_flag", "--port")
        return (*command, host, address, port, str(self.port))


def addressed(text: str, form: str) -> str:
    """A text in which NODE_0, NODE_1, ... became variables written in `form`."""
    return _NODE.sub(lambda found: form.format(found[0]), text)


@cache
def rows() -> dict[str, Any]:
    """Ports, health paths and images by backend."""
    text = Path(__file__).with_name("servers.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
