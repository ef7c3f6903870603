"""What a `vllm serve` line asks for."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from memserve.engines.command import Grammar, Words, grammar, read
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.unstated import UNSTATED, method
from memserve.errors import InvalidInput

NUMBERS = ("cpu-offload-gb", "decode-context-parallel-size")
"""Options that the account of memory reads as numbers."""
CONSUMED = frozenset({
    "model", "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "dtype",
    "kv-cache-dtype", "max-model-len", "gpu-memory-utilization", "max-num-seqs", "max-num-batched-tokens",
    "block-size", "enforce-eager", "kv-cache-memory-bytes", "enable-expert-parallel", "config",
})  # fmt: skip


@cache
def flags() -> Grammar:
    """The flags of its parser."""
    return grammar(Path(__file__).with_name("flags.json"))


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a `vllm serve` line; None if it starts something else."""
    from memserve_vllm import backend

    arguments = backend.arguments(command)
    if arguments is None:
        return None
    words = read((level(word) for word in arguments), flags())
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
    """Every flag that decides memory; the rest as options."""
    length = words.text("max-model-len")
    context = UNSTATED if length in (None, "auto", "-1") else words.integer("max-model-len") or UNSTATED
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
        options=tuple(_options(words, length)),
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


def _options(words: Words, length: str | None) -> Iterator[tuple[str, str]]:
    unset = {name for name in NUMBERS if words.number(name) is None}
    left_out = CONSUMED | unset
    yield from ((name, value) for name, value in words.options.items() if name not in left_out)
    if length in ("auto", "-1"):
        yield "fit-context", "true"
