"""What a `python -m sglang.launch_server` line asks for."""

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
    from memserve.plan.room.commandline import Words

MODULE = "sglang.launch_server"
NUMBERS = (
    "swa-full-tokens-ratio", "mamba-full-memory-ratio", "max-mamba-cache-size", "cuda-graph-max-bs",
    "max-total-tokens",
)  # fmt: skip
"""Options that the account of memory reads as numbers."""
CONSUMED = frozenset({
    "model-path", "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size",
    "expert-parallel-size", "dtype", "kv-cache-dtype", "context-length", "mem-fraction-static",
    "max-running-requests",
    "chunked-prefill-size", "page-size", "disable-cuda-graph", "enable-dp-attention",
})  # fmt: skip


@cache
def grammar() -> Grammar:
    """SGLang's flags, as data."""
    text = Path(__file__).with_name("flags.json").read_text(encoding="utf-8")
    table = json.loads(text)
    names = (frozenset(table[key]) for key in ("switches", "lists", "known"))
    return Grammar(table["aliases"], *names)


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a launch line; None if it starts something else."""
    arguments = arguments_of(command)
    if arguments is None:
        return None
    words = read(arguments, grammar())
    named = words.text("model-path") or (words.bare[0] if words.bare else None)
    if not named:
        raise InvalidInput(
            "the command names no model", hint=f"write python -m {MODULE} --model-path MODEL ..."
        )
    return named, deployment_of(words)


def arguments_of(command: tuple[str, ...]) -> tuple[str, ...] | None:
    """What stands after the server's module, or after `sglang serve`."""
    program = PurePath(command[0]).name
    if program == "sglang" and len(command) > 1 and command[1] == "serve":
        return command[2:]
    if program.startswith("python"):
        for place, word in enumerate(command[:-1]):
            if word == "-m" and command[place + 1] == MODULE:
                return command[place + 2 :]
    return None


def deployment_of(words: Words) -> Deployment:
    """Every flag that decides memory; the rest as options."""
    chunk = words.text("chunked-prefill-size")
    for name in NUMBERS:
        words.number(name)
    return Deployment(
        backend="sglang", engine_version="", quantization=method(words.text("quantization")),
        dtype=words.text("dtype") or "auto", kv_dtype=words.text("kv-cache-dtype") or "auto",
        layout=layout_of(words), context=words.integer("context-length") or UNSTATED,
        utilization=share(words), max_sequences=words.integer("max-running-requests"),
        max_batched_tokens=None if chunk in (None, "-1") else words.integer("chunked-prefill-size"),
        block_size=words.integer("page-size"), eager=words.flag("disable-cuda-graph"),
        options=tuple((name, value) for name, value in words.options.items() if name not in CONSUMED),
    )  # fmt: skip


def layout_of(words: Words) -> Layout:
    """tp is the number of all ranks; with DP attention, dp groups of them share attention."""
    tensor, pipeline, data = (
        positive(words, f"{name}-parallel-size") for name in ("tensor", "pipeline", "data")
    )
    experts = positive(words, "expert-parallel-size") > 1 or words.flag("enable-ep-moe")
    if not words.flag("enable-dp-attention"):
        return Layout(tensor, pipeline, data, experts)
    return Layout(tensor, pipeline, 1, experts, attention_data=data)


def positive(words: Words, name: str) -> int:
    """A count of at least one."""
    found = words.integer(name)
    if found is not None and not 1 <= found <= 4096:
        raise InvalidInput(f"--{name} must be from 1 to 4096, not {found}")
    return found or 1


def share(words: Words) -> float | None:
    """mem_fraction_static, above 0 and below 1."""
    found = words.number("mem-fraction-static")
    if found is not None and not 0 < found <= 1:
        raise InvalidInput(f"--mem-fraction-static must lie in (0, 1), not {found}")
    return found
