"""The command that starts transformers' own server."""

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

WORDS = {"nf4": "bnb-4bit", "int8": "bnb-8bit"}


class HfLauncher:
    """Starts `transformers serve`; memserve's own runs use backend "hf" without a server."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_hf import backend

        command = serve_command(
            checkpoint, quantization=deployment.quantization if deployment.option("online") else None,
            dtype=deployment.dtype, device="cpu" if machine.card.vendor == "cpu" else None,
            trust=model.remote_code,
        )  # fmt: skip
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=command,
            env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a `transformers serve` line asks for."""
        from memserve_hf.command import parse

        return parse(command)


def serve_command(checkpoint: str, *, quantization: str | None, dtype: str | None, device: str | None,
                  trust: bool) -> tuple[str, ...]:  # fmt: skip
    """`transformers serve` with the few options that it has."""
    options = {
        "quantization": WORDS.get(quantization or ""), "dtype": dtype, "device": device or "auto",
        "trust-remote-code": trust,
    }  # fmt: skip
    return ("transformers", "serve", checkpoint, *words(options))


launcher = HfLauncher()
