"""The command that starts llama.cpp's server: llama-cpp-python's, or its own."""

import re

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.hardware.machine import Machine
from memserve.memory.weights import Split, stage_bytes, storage
from memserve.model.spec import ModelSpec

BUILD = "git clone https://github.com/ggml-org/llama.cpp && cd llama.cpp && cmake -B build"
SPLIT = 45e9
"""Bytes above which repositories hold a file in parts (the hub takes 50 GB); `llama_cpp.server` fails."""


class LlamacppLauncher:
    """Starts `python -m llama_cpp.server`; `llama-server` for several requests at once and files in parts."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment. A hub id means a file of that repository."""
        from memserve_llamacpp import backend

        level = deployment.quantization.removeprefix("gguf-").upper()
        local = checkpoint.endswith(".gguf")
        on_cpu, embeds = machine.card.vendor == "cpu", bool(model.encoder_only or model.pooling)
        held = storage(model, deployment.quantization, deployment.dtype)
        parts = not local and stage_bytes(model, Split(), held, 1)[0] > SPLIT
        install = install_line(backend.rules, deployment, machine.card)
        notes = requirements(backend.rules, deployment, machine.card)
        if deployment.concurrency > 1 or parts:
            start: tuple[str, ...] = ("llama-server",)
            options = {
                "hf-repo": None if local else f"{checkpoint}:{level}", "model": checkpoint if local else None,
                "n-gpu-layers": 0 if on_cpu else 999, "ctx-size": deployment.context * deployment.concurrency,
                "parallel": deployment.concurrency, "embeddings": embeds or None,
            }  # fmt: skip
            built = re.search(r"-D\w+=on", install)
            install = f"{BUILD} {built[0] if built else ''} && cmake --build build -t llama-server"
            notes = ("needs a C++ compiler and cmake: llama-server is built from llama.cpp",)
        else:
            start = ("python", "-m", "llama_cpp.server")
            options = {
                "hf_model_repo_id": None if local else checkpoint,
                "model": checkpoint if local else f"*{level}*.gguf",
                "n_gpu_layers": 0 if on_cpu else -1, "n_ctx": deployment.context,
                "embedding": "true" if embeds else None,
            }  # fmt: skip
        env = visible_cards(machine, deployment.layout.cards)
        return Launch(install=install, command=(*start, *words(options)), env=env, notes=notes)

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a `llama_cpp.server` or `llama-server` line asks for."""
        from memserve_llamacpp.command import parse

        return parse(command)


launcher = LlamacppLauncher()
