"""The command that starts llama.cpp's server through llama-cpp-python."""

import re

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.engines.unstated import UNSTATED
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

LEVEL = re.compile(r"(?:^|[^a-z0-9])(i?q\d\w*|bf16|f16)(?=\W|$)", re.IGNORECASE)


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
        """The model and the deployment of such a line; None if it starts something else."""
        from memserve_llamacpp import backend

        said = backend.words(command)
        if said is None:
            return None
        file, repository = said.text("model") or "", said.text("hf-model-repo-id")
        if not repository and not file:
            raise InvalidInput("the command names no model", hint="write llama-server --model FILE.gguf")
        named, _, level = (repository or file).partition(":")
        found = LEVEL.search(level or file.rpartition("/")[2])
        return named, Deployment(
            backend="llamacpp", engine_version="", dtype="float16",
            quantization=f"gguf-{found[1].lower()}" if found else "none",
            context=said.integer("n-ctx") or UNSTATED,
            options=said.given(),
        )  # fmt: skip


launcher = LlamacppLauncher()
