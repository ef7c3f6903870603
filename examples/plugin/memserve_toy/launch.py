"""The command that starts toy-serve, and the reading of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.engines.install import install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch

if TYPE_CHECKING:
    from memserve.engines.deployment import Deployment
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec


class ToyLauncher:
    """Starts `toy-serve`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_toy import backend

        layout = deployment.layout
        options = {
            "shards": layout.tensor, "stages": layout.pipeline, "copies": layout.data,
            "dtype": deployment.dtype, "context": deployment.context, "share": deployment.utilization,
        }  # fmt: skip
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=("toy-serve", checkpoint, *words(options)),
            env=visible_cards(machine, layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that such a line asks for."""
        from memserve.engines.command import Grammar, read
        from memserve.engines.deployment import Deployment, Layout
        from memserve_toy import backend

        arguments = backend.arguments(command)
        if arguments is None:
            return None
        said = read(arguments, Grammar())
        return said.bare[0], Deployment(
            backend="toy", engine_version="", dtype=said.text("dtype") or "auto",
            layout=Layout(said.count("shards"), said.count("stages"), said.count("copies")),
            context=said.integer("context") or 0, utilization=said.share("share"),
        )  # fmt: skip


launcher = ToyLauncher()
