"""What a `vllm serve` line asks for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from memserve.errors import InvalidInput
from memserve.memory.account import Deployment, Layout
from memserve.plan.room.asked import UNSTATED, method
from memserve.plan.room.commandline import Grammar, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.plan.room.commandline import Words

MODULES = frozenset({"vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server"})
NUMBERS = ("cpu-offload-gb", "decode-context-parallel-size")
"""Options that the account of memory reads as numbers."""
CONSUMED = frozenset({
    "model", "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "dtype",
    "kv-cache-dtype", "max-model-len", "gpu-memory-utilization", "max-num-seqs", "max-num-batched-tokens",
    "block-size", "enforce-eager", "kv-cache-memory-bytes", "enable-expert-parallel", "config",
})  # fmt: skip


@cache
def grammar() -> Grammar:
    """vLLM's flags, as data."""
    text = Path(__file__).with_name("flags.json").read_text(encoding="utf-8")
    table = json.loads(text)
    names = (frozenset(table[key]) for key in ("switches", "lists", "known"))
    return Grammar(table["aliases"], *names)


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a `vllm serve` line; None if it starts something else."""
    arguments = arguments_of(command)
    if arguments is None:
        return None
    words = read(arguments, grammar())
    return model_of(words), deployment_of(words)


def arguments_of(command: tuple[str, ...]) -> tuple[str, ...] | None:
    """What stands after `vllm serve` or after the API server's module."""
    program = PurePath(command[0]).name
    if program == "vllm" and len(command) > 1 and command[1] == "serve":
        return command[2:]
    if program.startswith("python"):
        for place, word in enumerate(command[:-1]):
            if word == "-m" and command[place + 1] in MODULES:
                return command[place + 2 :]
    return None


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
            positive(words, "tensor-parallel-size"), positive(words, "pipeline-parallel-size"),
            positive(words, "data-parallel-size"), words.flag("enable-expert-parallel"),
        ),
        context=context, utilization=utilization(words), max_sequences=words.integer("max-num-seqs"),
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


def positive(words: Words, name: str) -> int:
    """A count of at least one."""
    found = words.integer(name)
    if found is not None and not 1 <= found <= 4096:
        raise InvalidInput(f"--{name} must be from 1 to 4096, not {found}")
    return found or 1


def utilization(words: Words) -> float | None:
    """The share of each card, above 0 and at most 1."""
    share = words.number("gpu-memory-utilization")
    if share is not None and not 0 < share <= 1:
        raise InvalidInput(f"--gpu-memory-utilization must lie in (0, 1], not {share}")
    return share


def _options(words: Words, length: str | None) -> Iterator[tuple[str, str]]:
    for name in NUMBERS:
        words.number(name)
    yield from ((name, value) for name, value in words.options.items() if name not in CONSUMED)
    if length in ("auto", "-1"):
        yield "fit-context", "true"
