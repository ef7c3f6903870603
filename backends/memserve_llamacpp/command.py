"""What a `python -m llama_cpp.server` or `llama-server` line asks for."""

import re

from memserve.engines.command import Grammar, read
from memserve.engines.deployment import Deployment
from memserve.engines.unstated import UNSTATED
from memserve.errors import InvalidInput

FLAGS = Grammar(
    aliases={
        "m": "model", "c": "n-ctx", "ctx-size": "n-ctx", "ngl": "n-gpu-layers", "gpu-layers": "n-gpu-layers",
        "hf": "hf-model-repo-id", "hf-repo": "hf-model-repo-id", "np": "parallel",
    },
    switches=frozenset({"mlock", "no-mmap", "embeddings", "jinja", "cont-batching"}),
)  # fmt: skip
LEVEL = re.compile(r"(?:^|[^a-z0-9])(i?q\d\w*|bf16|f16)(?=\W|$)", re.IGNORECASE)


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of such a line; None if it starts something else."""
    from memserve_llamacpp import backend

    arguments = backend.arguments(command)
    if arguments is None:
        return None
    words = read(arguments, FLAGS)
    file, repository = words.text("model") or "", words.text("hf-model-repo-id")
    if not repository and not file:
        raise InvalidInput("the command names no model", hint="write llama-server --model FILE.gguf")
    named, _, level = (repository or file).partition(":")
    found = LEVEL.search(level or file.rpartition("/")[2])
    each = (words.integer("n-ctx") or 0) // (words.integer("parallel") or 1)
    return named, Deployment(
        backend="llamacpp", engine_version="", quantization=f"gguf-{found[1].lower()}" if found else "none",
        dtype="float16", context=each or UNSTATED,
    )  # fmt: skip
