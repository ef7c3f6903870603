"""The command that starts transformers' own server."""

from memserve.engines.deployment import Deployment
from memserve.engines.install import UNBOUNDED, install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

WORDS = {"nf4": "bnb-4bit", "int8": "bnb-8bit"}
SWITCHES = {"load-in-4bit": "nf4", "load-in-8bit": "int8"}
"""How releases before 5.0 said it."""


NO_VECTORS = "transformers serve has no route for vectors, memserve serve --backend hf --model {} has"
"""Of transformers 5.24.0 cli/serving/server.py: chat, completions, responses and transcriptions alone."""


class HfLauncher:
    """Starts `transformers serve`; memserve's own runs use backend "hf" without a server."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_hf import backend

        notes = requirements(backend.rules, deployment, machine.card)
        if model.embeds:
            notes = (NO_VECTORS.format(checkpoint), *notes)
        command = serve_command(
            checkpoint, quantization=deployment.quantization if deployment.option("online") else None,
            dtype=deployment.dtype, device="cpu" if machine.card.vendor == "cpu" else None,
            trust=deployment.option("trust-remote-code") is not None,
        )  # fmt: skip
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=command,
            env=visible_cards(machine, deployment.layout.cards),
            notes=notes,
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment of such a line, which bounds no context; None if it starts another."""
        from memserve_hf import backend

        said = backend.words(command)
        if said is None:
            return None
        named = said.bare[0] if said.bare else said.text("force-model")
        if not named:
            raise InvalidInput("the command names no model", hint="write transformers serve MODEL ...")
        online = said.text("quantization")
        asked = next((method for name, method in SWITCHES.items() if said.flag(name)), "none")
        return named, Deployment(
            backend="hf", engine_version="", context=UNBOUNDED,
            dtype=said.text("dtype") or said.text("torch-dtype") or "auto",
            quantization=next((method for method, word in WORDS.items() if word == online), asked),
            options=said.given(),
        )  # fmt: skip


def serve_command(checkpoint: str, *, quantization: str | None, dtype: str | None, device: str | None,
                  trust: bool) -> tuple[str, ...]:  # fmt: skip
    """`transformers serve` with the few options that it has."""
    options = {
        "quantization": WORDS.get(quantization or ""), "dtype": dtype, "device": device or "auto",
        "trust-remote-code": trust,
    }  # fmt: skip
    return ("transformers", "serve", checkpoint, *words(options))


launcher = HfLauncher()
