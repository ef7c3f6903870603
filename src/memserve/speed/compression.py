"""What compression does to size, memory and speed; accuracy only where a published table states it.

Quantization changes the bytes that a step reads and, with 8- or 4-bit activations, the arithmetic. Pruning
changes them only as far as kernels can skip what is gone: single zeros save nothing.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from memserve.engines import installed
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.rules.judge import Judge, offered
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.speed.losses import Accuracy, accuracy
from memserve.speed.result import Speed
from memserve.speed.roofline import layout, queueing, shape
from memserve.speed.roofline.forecast import Situation, judge, situate
from memserve.speed.roofline.shape import Shape

QUANTIZATIONS = ("none", "fp8", "w8a8", "int8", "w8a16", "gptq", "awq", "w4a16", "nf4", "nvfp4", "mxfp4",
                 "gguf-q4_k_m")  # fmt: skip
CONTEXT = 8192
"""Tokens of the one request that memory must hold, where the model reads so many."""


@dataclass(frozen=True)
class Effect:
    """One way to compress a model on one machine."""

    method: str
    parameters: float
    weight_bytes: float
    """All cards together."""
    speed: Speed
    faster: float | None
    """Output tokens per second against the uncompressed model, likely; None where either cannot run."""
    accuracy: tuple[Accuracy, ...] = ()
    """Of other models too: `model` says whose. Empty: no published table is known."""
    note: str = ""
    refused: str = ""
    """Why the engine does not run it there: a rule's sentence, or that memory does not hold it."""


def quantizations(model: ModelSpec, machine: Machine, backend: str, *, names: tuple[str, ...] = QUANTIZATIONS,
                  input_tokens: float = 1024, output_tokens: float = 256, concurrency: float | None = 16,
                  **layout_words: Any) -> list[Effect]:  # fmt: skip
    """Size, memory and speed of a model in each quantization, the uncompressed one first."""
    bare = shape.of(model)._replace(stored=None, experts_only=False, experts_stored=None)
    load = queueing.Load(input_tokens, output_tokens)

    def effect(name: str) -> Effect:
        seen = situate(bare, machine, backend, load, concurrency, quantization=name, **layout_words)
        refused = _refused(model, machine, backend, name, seen)
        return _effect(name, bare, seen.setup.format, judge(seen), refused=refused)

    first, *others = (effect(name) for name in ("none", *(name for name in names if name != "none")))
    return [_against(one, first) for one in (first, *others)]


def _against(one: Effect, base: Effect) -> Effect:
    """With the gain over the uncompressed model, where both run."""
    ratio = one.speed.output_tokens_per_s.likely / base.speed.output_tokens_per_s.likely
    return replace(one, faster=None if one.refused or base.refused else ratio)


def _refused(model: ModelSpec, machine: Machine, backend: str, name: str, seen: Situation) -> str:
    """What the planner's rules, then its memory, say; empty where it runs, or no such engine is known."""
    if backend not in installed.plannable():
        return ""
    engine = installed.named(backend)
    judges = {str(row["version"]): Judge(engine.rules, str(row["version"]), model, machine)
              for row in offered(engine.rules)}  # fmt: skip
    version = next((one for one, ask in judges.items() if ask.card() is None), None)
    if version is None:
        return f"no release of {backend} runs on {machine.card.name}"
    refusal = None
    for dtype in ("bfloat16", "float16"):
        tried = Deployment(backend, version, name, dtype,
                           context=min(CONTEXT, model.max_context or CONTEXT),
                           layout=Layout(seen.setup.tensor, seen.setup.pipeline))  # fmt: skip
        refusal = judges[version](tried)
        if refusal is None:
            footprint = engine.memory.account(model, machine, tried)
            told = "; ".join(footprint.reasons) or "memory does not hold it"
            return "" if footprint.outcome == "runs" else f"does not fit: {told}"
    return refusal.reason if refusal else ""


def prune(model: ModelSpec, machine: Machine, backend: str, pattern: str, *, input_tokens: float = 1024,
          output_tokens: float = 256, concurrency: float | None = 16,
          **layout_words: Any) -> Effect:  # fmt: skip
    """`unstructured:0.5`, `2:4`, `channel:0.25` (of each layer's width) or `layer:8` (whole layers)."""
    bare = shape.of(model)._replace(stored=None, experts_only=False, experts_stored=None)
    load = queueing.Load(input_tokens, output_tokens)
    whole = situate(bare, machine, backend, load, concurrency, **layout_words)
    base = _effect("none", bare, whole.setup.format, judge(whole),
                   refused=_refused(model, machine, backend, "none", whole))  # fmt: skip
    smaller, note = pruned(bare, pattern)
    seen = situate(smaller, machine, backend, load, concurrency, **layout_words)
    return _against(_effect(pattern, smaller, seen.setup.format, judge(seen), note), base)


def pruned(whole: Shape, pattern: str) -> tuple[Shape, str]:
    """The smaller shape, and why it is or is not smaller."""
    pair = re.fullmatch(r"(\d+):(\d+)", pattern)
    if pair:
        return whole, _patterned(int(pair.group(1)), int(pair.group(2)))
    kind, _, amount = pattern.partition(":")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if kind == "unstructured" and 0 < value < 1:
        return whole, "zeros stay in dense matrices: no size, memory or time is saved by engines today"
    if kind == "channel" and 0 < value < 1:
        return _narrower(whole, 1 - value), "smaller dense matrices: every engine gains"
    if kind == "layer" and 0 < value < whole.layers and value == int(value):
        return _shorter(whole, int(value)), "fewer layers: weights, cache and launches shrink alike"
    raise InvalidInput(f"not a pruning: {pattern!r}", hint="unstructured:0.5, 2:4, channel:0.25 or layer:8")


def _patterned(kept: int, of: int) -> str:
    if not 0 < kept < of:
        raise InvalidInput(f"{kept}:{of} keeps no part of every {of} weights")
    return f"no engine has {kept}:{of} kernels any more: nothing is saved"


def _narrower(whole: Shape, kept: float) -> Shape:
    return whole._replace(mixing=whole.mixing * kept, dense=whole.dense * kept, expert=whole.expert * kept)


def _shorter(whole: Shape, gone: int) -> Shape:
    kept = 1 - gone / whole.layers
    parts = tuple(part._replace(layers=max(1, round(part.layers * kept))) for part in whole.attentions)
    return _narrower(whole, kept)._replace(
        layers=whole.layers - gone, attentions=parts, expert_layers=round(whole.expert_layers * kept)
    )


def _effect(method: str, size: Shape, form: shape.Format, speed: Speed, note: str = "", *,
            refused: str = "") -> Effect:  # fmt: skip
    total = size.mixing + size.dense + size.plain + size.resident + size.expert * size.experts
    published, stored = accuracy(method, size.id), layout.stored_bytes(size, form)
    return Effect(method, total, stored, speed, None, published, note, refused)
