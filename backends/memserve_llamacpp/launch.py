"""The command that starts llama.cpp's server through llama-cpp-python."""

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec


class LlamacppLauncher:
    """Starts `python -m llama_cpp.server`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment. A hub id means a file of that repository."""
        from memserve_llamacpp import backend

        level = deployment.quantization.removeprefix("gguf-").upper()
        local = checkpoint.endswith(".gguf")
        options = {
            "hf_model_repo_id": None if local else checkpoint,
            "model": checkpoint if local else f"*{level}*.gguf",
            "n_gpu_layers": 0 if machine.card.vendor == "cpu" else -1,
            "n_ctx": deployment.context * max(1, deployment.concurrency),
            "embedding": "true" if model.encoder_only or model.pooling else None,
        }
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=("python", "-m", "llama_cpp.server", *words(options)),
            env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a `llama_cpp.server` or `llama-server` line asks for."""
        from memserve_llamacpp.command import parse

        return parse(command)


launcher = LlamacppLauncher()
