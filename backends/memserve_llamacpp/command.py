"""What a `python -m llama_cpp.server` or `llama-server` line asks for."""

import re

from memserve.engines.deployment import Deployment
from memserve.engines.unstated import UNSTATED
from memserve.errors import InvalidInput

LEVEL = re.compile(r"(?:^|[^a-z0-9])(i?q\d\w*|bf16|f16)(?=\W|$)", re.IGNORECASE)


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of such a line; None if it starts something else."""
    from memserve_llamacpp import backend

    if command[0] == "ollama":
        raise InvalidInput(
            "ollama chooses file, context and layers by itself, so its command says too little to be judged",
            hint="give what it starts: llama-server -hf REPOSITORY:Q4_K_M -c CONTEXT",
        )
    words = backend.words(command)
    if words is None:
        return None
    file, repository = words.text("model") or "", words.text("hf-model-repo-id")
    if not repository and not file:
        raise InvalidInput("the command names no model", hint="write llama-server --model FILE.gguf")
    named, _, level = (repository or file).partition(":")
    found = LEVEL.search(level or file.rpartition("/")[2])
    return named, Deployment(
        backend="llamacpp", engine_version="", quantization=f"gguf-{found[1].lower()}" if found else "none",
        dtype="float16", context=words.integer("n-ctx") or UNSTATED, options=words.given(),
    )  # fmt: skip
