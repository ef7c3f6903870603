"""What a `vllm serve` line asks for."""

import json

from memserve.engines.command import Words
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.unstated import LARGEST, UNSTATED, method
from memserve.errors import InvalidInput

NUMBERS = ("cpu-offload-gb", "decode-context-parallel-size", "num-gpu-blocks-override")
"""Options that the account of memory reads as numbers."""


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a `vllm serve` line; None if it starts something else."""
    from memserve_vllm import backend

    words = backend.words(command, level)
    if words is None:
        return None
    return model_of(words), deployment_of(words)


def level(word: str) -> str:
    """-O in full: a level, a key of the compilation config, or the whole of it."""
    if not word.startswith("-O"):
        return word
    value = word[2:].lstrip("=")
    if value.startswith("."):
        return f"--compilation-config{value}"
    if value.startswith("{"):
        return f"--compilation-config={value}"
    return f"--optimization-level={value}" if value else "--optimization-level"


def model_of(words: Words) -> str:
    """The model's name or path."""
    named = words.bare[0] if words.bare else words.text("model")
    if not named:
        raise InvalidInput("the command names no model", hint="write vllm serve MODEL ...")
    if len(words.bare) > 1:
        raise InvalidInput(f"unexpected word {words.bare[1][:60]!r} after the model")
    return named


def deployment_of(words: Words) -> Deployment:
    """What decides memory; every flag as it stands among the options."""
    length = words.text("max-model-len")
    context = LARGEST if length in ("auto", "-1") else words.integer("max-model-len") or UNSTATED
    return Deployment(
        backend="vllm", engine_version="", quantization=method(words.text("quantization")),
        dtype=words.text("dtype") or "auto", kv_dtype=words.text("kv-cache-dtype") or "auto",
        layout=Layout(
            words.count("tensor-parallel-size"), words.count("pipeline-parallel-size"),
            words.count("data-parallel-size"), words.flag("enable-expert-parallel"),
        ),
        context=context, utilization=words.share("gpu-memory-utilization"),
        max_sequences=words.integer("max-num-seqs"),
        max_batched_tokens=words.integer("max-num-batched-tokens"), block_size=words.integer("block-size"),
        eager=words.flag("enforce-eager") or no_graphs(words),
        kv_bytes=words.integer("kv-cache-memory-bytes"),
        options=words.given(NUMBERS),
    )  # fmt: skip


def no_graphs(words: Words) -> bool:
    """Whether the compilation flags turn CUDA graphs off."""
    if words.text("optimization-level") == "0":
        return True
    text = words.text("compilation-config") or "{}"
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"--compilation-config is not JSON: {error.msg}") from None
    mode = words.text("compilation-config.cudagraph-mode")
    if isinstance(config, dict):
        mode = mode or config.get("cudagraph_mode")
    return str(mode).upper() == "NONE" and mode is not None
