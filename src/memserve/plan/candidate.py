"""A candidate: one deployment with its weights and its verdict, in the words of the JSON answer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Footprint, Outcome
from memserve.hardware.machine import GIB
from memserve.model.spec import ModelSpec, Quantization, remembered

MEMORY_FIELDS = ("usable", "weights", "activation", "non_torch", "graphs", "kv_cache", "free")


UNTIMED = "never timed on such a card"
"""Beside a predicted speed of an engine that no published row times there."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights that a deployment loads."""

    id: str
    quantization: str
    source: str = ""
    make: str | None = None
    """The command that makes it, where none is known to exist."""
    online: bool = False
    """The engine quantizes the 16-bit checkpoint while loading it."""
    stored: bool = False
    """The model itself is stored so: it comes in no other form."""
    bits: float = 4
    group_size: int | None = None
    block: int | None = None
    """FP8: rows and columns that share a scale."""


def loaded(model: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """The shapes that are really loaded: a known checkpoint's own, where the catalogue has them."""
    usual = checkpoint.make and checkpoint.group_size is None
    other = checkpoint.quantization in model.levels[1:]
    if (checkpoint.id == model.id and not other) or checkpoint.online or usual:
        return model
    return remembered(model, checkpoint, lambda: _loaded(model, checkpoint))


def _loaded(model: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    from memserve.model import catalogue, load

    if not checkpoint.make and catalogue.find(checkpoint.id) is not None:
        return replace(load(checkpoint.id), pooling=model.pooling)
    own = (checkpoint.group_size, checkpoint.block) == (None, None)
    usual = catalogue.formats().get(checkpoint.quantization, {}).get("bits", 4)
    if own and checkpoint.bits == usual and model.quantization is None:
        return model
    method, block = checkpoint.quantization, checkpoint.block
    stored = Quantization(
        method=method, checkpoint_method=method, bits=checkpoint.bits,
        group_size=checkpoint.group_size or catalogue.usual_group(method),
        block=(block, block) if block else None,
    )  # fmt: skip
    return replace(model, quantization=stored)


@dataclass(frozen=True)
class Verdict:
    """What rules and then memory say about one deployment."""

    outcome: Outcome
    rule: str = ""
    """The rule that forbids it; `memory` where rules allow it and it does not fit; empty if it runs."""
    reason: str = ""
    source: str = ""
    footprint: Footprint | None = None
    """None: a rule spoke before memory was asked, or an HTTP provider has none."""
    missed: float = 0.0
    """By what factor an answer is too late."""

    @property
    def fits(self) -> bool:
        """The engine would start."""
        return self.outcome == "runs"


@dataclass(frozen=True, repr=False)
class Judged:
    """A deployment and its verdict, under the names of the JSON answer: what candidates and plans share."""

    deployment: Deployment
    verdict: Verdict
    checkpoint: Checkpoint

    @property
    def backend(self) -> str:
        """Whose engine it starts."""
        return self.deployment.backend

    @property
    def engine_version(self) -> str:
        """The release that is planned with."""
        return self.deployment.engine_version

    @property
    def quantization(self) -> str:
        """How the weights are held."""
        return self.deployment.quantization

    @property
    def dtype(self) -> str:
        """What the engine computes in."""
        return self.deployment.dtype

    @property
    def kv_dtype(self) -> str:
        """What the KV cache holds."""
        return self.deployment.kv_dtype

    @property
    def tensor_parallel(self) -> int:
        """Cards that share every layer."""
        return self.deployment.layout.tensor

    @property
    def pipeline_parallel(self) -> int:
        """Groups of layers."""
        return self.deployment.layout.pipeline

    @property
    def data_parallel(self) -> int:
        """Copies of the model."""
        return self.deployment.layout.data

    @property
    def context(self) -> int:
        """Tokens of one request, prompt and answer."""
        return self.deployment.context

    @property
    def concurrency(self) -> int:
        """Requests of that context that were asked for at once."""
        return self.deployment.concurrency

    @property
    def fits(self) -> bool:
        """Rules allow it and memory holds it."""
        return self.verdict.fits

    @property
    def outcome(self) -> Outcome:
        """runs, refused or out_of_memory."""
        return self.verdict.outcome

    @property
    def reason(self) -> str:
        """Why it does not fit; empty if it does."""
        return self.verdict.reason

    @property
    def rule(self) -> str:
        """The rule behind `reason`."""
        return self.verdict.rule

    @property
    def source(self) -> str:
        """Where the rule was read."""
        return self.verdict.source

    @property
    def footprint(self) -> Footprint | None:
        """One card's memory, where it was asked for."""
        return self.verdict.footprint

    @property
    def kv_cache_tokens(self) -> int | None:
        """Tokens that the KV pool holds, per data-parallel rank."""
        return None if self.footprint is None else self.footprint.kv_tokens

    @property
    def max_concurrency(self) -> float | None:
        """Requests of the full context that the KV pool holds at once."""
        return None if self.footprint is None else round(self.footprint.max_concurrency, 2)

    @property
    def error_bars(self) -> dict[str, dict[str, float]] | None:
        """What 90 % of real starts of this class stay within, each in its figure's unit."""
        if self.footprint is None:
            return None
        found, bars = self.footprint, self.footprint.error_bars
        tokens = [width / bars.token_bytes if bars.token_bytes else 0 for width in bars.kv_cache]
        return {
            "weights": within(found.weights / GIB, [width / GIB for width in bars.weights]),
            "kv_cache": within(found.kv_cache / GIB, [width / GIB for width in bars.kv_cache]),
            "kv_cache_tokens": {k: int(v) for k, v in within(found.kv_tokens, tokens).items()},
        }

    @property
    def tight(self) -> str:
        """Why nine of ten such starts may end otherwise: the KV cache holds a request, or does not."""
        held = self.footprint
        if held is None or self.verdict.rule not in ("", "memory"):
            return ""
        below, above = held.error_bars.kv_cache
        need = held.kv_cache / (held.max_concurrency or 1) or self.context * held.error_bars.token_bytes
        parts = (held.weights, held.activation, held.non_torch, held.graphs, held.kv_cache)
        most = held.kv_cache + max(0, held.usable - sum(parts))
        holds = held.max_concurrency >= 1
        near = most - below < need if holds else most + above >= need
        if not near or need <= 0 or not held.kv_tokens + above or holds != self.fits:
            return ""
        return f"tight: a request of {self.context:,} tokens takes {need / GIB:.2f} GiB of KV cache"

    @property
    def memory_gib_per_card(self) -> dict[str, float] | None:
        """The fullest card's memory in GiB; None for HTTP providers."""
        return None if self.footprint is None else gib(self.footprint)


@dataclass(frozen=True)
class Candidate(Judged):
    """One combination of engine, release, quantization and layout, judged."""

    remote: bool = False
    """Served by an HTTP provider: no memory, no layout."""

    def to_dict(self) -> dict[str, Any]:
        """As a line of `rejected`."""
        return {
            "backend": self.backend, "engine_version": self.engine_version or None,
            "quantization": self.quantization, "dtype": self.dtype, "kv_dtype": self.kv_dtype,
            "checkpoint": self.checkpoint.id,
            "tensor_parallel": None if self.remote else self.tensor_parallel,
            "pipeline_parallel": None if self.remote else self.pipeline_parallel,
            "data_parallel": None if self.remote else self.data_parallel,
            "outcome": self.outcome, "rule": self.rule, "reason": self.reason, "source": self.source,
        }  # fmt: skip


def within(value: float, widths: Sequence[float]) -> dict[str, float]:
    """From so far below to so far above; nothing is less than none."""
    return {"low": round(max(0.0, value - widths[0]), 4), "high": round(value + widths[1], 4)}


def gib(footprint: Footprint) -> dict[str, float]:
    """A footprint in GiB under the names of the contract."""
    return {name: round(getattr(footprint, name) / GIB, 4) for name in MEMORY_FIELDS}


_LOSSES = files.table(__file__, "losses.json")
WEIGHTS: dict[str, int] = _LOSSES["weights"]
_STEPS: dict[str, Any] = _LOSSES["steps"]
KV: dict[str, int] = _STEPS["kv"]
BELOW_4_BIT: int = _STEPS["below_4_bit"]
"""The steps of weights that nobody is offered unasked."""
PREFERRED: tuple[str, ...] = tuple(_LOSSES["preferred"])
OVERFLOWS: dict[str, list[str]] = _LOSSES["overflows"]
"""Models whose activations a dtype cannot hold."""
EIGHT_BIT: int = _LOSSES["eight_bit"]


def weight_loss(checkpoint: Checkpoint) -> int:
    """The order of a checkpoint's weights: 0 is 16 bit."""
    loss = WEIGHTS.get(checkpoint.quantization, 40)
    return min(loss, EIGHT_BIT) if checkpoint.bits == 8 else loss


def steps(loss: int, kv_dtype: str) -> int:
    """Steps below 16 bits, as data/losses.json counts them: weights of that loss and their KV cache."""
    return bisect_right(_STEPS["weights"], loss) + KV.get(kv_dtype, 3)


def preference(quantization: str) -> int:
    """Between equals, the better supported first."""
    return PREFERRED.index(quantization) if quantization in PREFERRED else len(PREFERRED)
