"""An engine that nobody has, for a card that nobody has: all that a backend may tell, without `Package`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.engines import server
from memserve.engines.command import Grammar, read
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.install import install_line, words
from memserve.engines.launch import Launch
from memserve.engines.memory import Footprint
from memserve.errors import BackendMissing
from memserve.protocol import Capabilities

if TYPE_CHECKING:
    from memserve.hardware import Machine
    from memserve.model.spec import ModelSpec

GIB = 1024**3
RULES: dict[str, Any] = {
    "engine": "Abacus", "rank": 51, "quantizations": ["none"], "kv_dtypes": ["auto"],
    "serves": {"continuous_batching": True, "tensor_parallel": True, "data": True},
    "versions": [{"version": "2.0", "packages": ["abacus==2.0"], "source": "made up"}],
    "rows": [
        {"id": "abacus-vendor", "when": {"vendor": {"not": ["abacus"]}}, "says": "no beads on {card}",
         "source": "made up"},
        {"id": "world", "check": "world", "when": {}, "says": "{world} of {cards} cards",
         "source": "made up"},
    ],
}  # fmt: skip
SERVER: dict[str, Any] = {
    "programs": [{"starts": ["python -m abacus.serving"], "host": "--listen", "port": "--at",
                  "default_port": 9009, "key_env": "ABACUS_KEY", "health": "/beads", "client": "openai",
                  "dialect": "generic"}],
    "images": {"abacus": "abacus/server:{version}"},
    "nodes": {"way": "ray", "env": {"ABACUS_HOST": "{host}"}, "copies_over_ray": ["--copies-over", "ray"]},
}  # fmt: skip
LOG: dict[str, Any] = {
    "engine": "Abacus", "recognised_by": "^abacus sees", "example": "abacus sees 47.85G", "block_size": 1,
    "lines": [
        {"field": "total", "pattern": r"abacus sees ([\d.]+)G", "pick": "min", "unit": "gib",
         "printed_by": "2"},
        {"field": "non_torch", "pattern": r"abacus frame ([\d.]+)G", "pick": "max", "unit": "gib",
         "printed_by": "2"},
    ],
}  # fmt: skip
SPEED: dict[str, Any] = {
    "names": ["abacus"], "limits": [{"sequences": 4, "tokens": 64, "source": "made up"}],
}  # fmt: skip


class Memory:
    """Everything but the weights is cache."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        total, frame = machine.card.memory, GIB // 2
        weights = model.parameters * 2 // deployment.layout.tensor
        pool = max(0, total - frame - weights)
        tokens = pool // max(1, model.hidden * len(model.blocks))
        footprint = Footprint(total, total, weights, 0, frame, 0, pool, tokens, tokens / deployment.context)
        return footprint if tokens >= deployment.context else footprint.fails("out_of_memory", "few beads")

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        return min(model.max_context or 0, self.account(model, machine, deployment).kv_tokens)


class Launcher:
    """`python -m abacus.serving MODEL`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        layout = deployment.layout
        options = {"frames": layout.tensor, "copies": layout.data, "beads": deployment.context,
                   "dtype": deployment.dtype}  # fmt: skip
        start = ("python", "-m", "abacus.serving", checkpoint)
        return Launch(install_line(RULES, deployment, machine.card), (*start, *words(options)))

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        program = backend.server.started_by(command)
        if program is None:
            return None
        said = read(program.arguments(command) or (), Grammar())
        return said.bare[0], Deployment(
            backend="abacus", engine_version="", dtype=said.text("dtype") or "auto",
            layout=Layout(tensor=said.count("frames"), data=said.count("copies")),
            context=said.integer("beads") or 0,
        )  # fmt: skip


class Abacus:
    """What the entry point names."""

    capabilities = Capabilities(backend="abacus")
    rules, memory, launch = RULES, Memory(), Launcher()
    server, log, speed = server.read(SERVER), LOG, SPEED

    def open(self, model: str | None = None, **options: Any) -> Any:
        raise BackendMissing("abacus", needs="abacus", install="pip install abacus")


backend = Abacus()
