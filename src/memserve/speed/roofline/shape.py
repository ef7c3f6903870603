"""What of a model decides its speed: how many weights a step reads, and what its attention keeps.

A `Shape` is a model's weight inventory summed up once, so that a prediction takes microseconds.
"""

from __future__ import annotations

import re
from functools import cache
from math import exp, lgamma
from typing import Any, NamedTuple

from memserve import files
from memserve.errors import UnknownName
from memserve.hardware.machine import Card
from memserve.model import catalogue
from memserve.model.spec import Block, ModelSpec, Weight, remembered


class Attention(NamedTuple):
    """The layers of a model that mix tokens in the same way."""

    kind: str
    layers: int
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    latent: int = 0
    """MLA: cached elements per token, which no tensor parallelism divides."""
    state: int = 0
    """Linear attention: elements kept per sequence whatever its length."""

    def cached(self, tokens: float) -> float:
        """Tokens whose keys and values a step reads."""
        return min(tokens, self.window) if self.window else tokens

    @property
    def elements(self) -> int:
        """Cached elements per token and layer."""
        return self.latent or self.kv_heads * (self.key_dim + self.value_dim)

    @property
    def width(self) -> int:
        """Multiply-adds per cached token and new token."""
        if self.latent:
            return self.heads * (2 * self.latent - self.key_dim)
        return self.heads * (self.key_dim + self.value_dim)


class Shape(NamedTuple):
    """A model in the numbers that its speed follows from."""

    id: str
    layers: int
    hidden: int
    mixing: float
    """Parameters of the attention projections."""
    dense: float
    """Parameters of dense and shared-expert feed-forward layers."""
    expert: float
    """Parameters of one routed expert, summed over the layers that have experts."""
    experts: int
    experts_per_token: int
    expert_layers: int
    plain: float
    """Parameters that quantization leaves alone and each step reads: the head, routers, norms."""
    resident: float
    """Parameters that take memory and are not read by a step: embeddings, towers."""
    attentions: tuple[Attention, ...]
    vocabulary: int = 0
    stored: str | None = None
    """The quantization that the checkpoint is stored in."""
    experts_only: bool = False
    """The stored quantization covers the routed experts alone."""
    experts_stored: str | None = None
    """The quantization of the routed experts, where the checkpoint holds them in another than the rest."""

    @property
    def active(self) -> float:
        """Parameters that one token is multiplied with."""
        return self.mixing + self.dense + self.plain + self.expert * self.experts_per_token

    def touched(self, tokens: float, evenness: float) -> float:
        """Experts per layer that so many tokens call for: some are more popular, by a beta distribution."""
        if not self.experts:
            return 0.0
        rest = evenness * (self.experts / self.experts_per_token - 1)
        if rest <= 0:
            return float(self.experts)
        missed = (
            lgamma(rest + tokens) + lgamma(evenness + rest) - lgamma(rest) - lgamma(evenness + rest + tokens)
        )
        return float(self.experts * (1 - exp(missed)))


READ_PLAIN = {"router", "norm", "position"}


def of(spec: ModelSpec) -> Shape:
    """Sum up a model."""
    return remembered(spec, "shape", lambda: _summed(spec))


def _summed(spec: ModelSpec) -> Shape:
    blocks = (*spec.encoder, *spec.blocks)
    sums = _Sums()
    for block, count in _grouped(blocks):
        sums.add(block, count)
    heads = [w for w in spec.top if w.part == "head"] or [w for w in spec.stem if _is_head(w, spec)]
    heads = [] if spec.embeds else heads
    unread = sum(w.parameters for w in (*spec.stem, *spec.towers) if not _is_head(w, spec))
    stored = spec.quantization
    parts = stored.others if stored and sums.experts else ()
    apart = next((one.method for one in parts if any("experts" in target for target in one.targets)), None)
    return Shape(
        id=spec.id, layers=len(blocks), hidden=spec.hidden, mixing=sums.mixing, dense=sums.dense,
        expert=sums.expert, experts=sums.experts, experts_per_token=sums.experts_per_token,
        expert_layers=sums.expert_layers, plain=sums.plain + sum(_size(w) for w in heads), resident=unread,
        attentions=tuple(_attention(block, count) for block, count in _alike(blocks)),
        vocabulary=spec.vocabulary, stored=stored.method if stored else None,
        experts_only=bool(stored and sums.experts and any("attn" in rule for rule in stored.ignored)),
        experts_stored=apart,
    )  # fmt: skip


class _Sums:
    """Running totals over the layers."""

    def __init__(self) -> None:
        self.mixing = self.dense = self.expert = self.plain = 0.0
        self.experts = self.experts_per_token = self.expert_layers = 0

    def add(self, block: Block, count: int) -> None:
        if block.experts:
            self.experts, self.experts_per_token = block.experts, block.experts_per_token
            self.expert_layers += count
        for weight in block.weights:
            size = _size(weight) * count
            if weight.part == "expert":
                self.expert += size / block.experts
            elif weight.part in READ_PLAIN or not weight.linear:
                self.plain += size
            elif weight.part in {"attention", "mixer"}:
                self.mixing += size
            else:
                self.dense += size


def _size(weight: Weight) -> float:
    size = weight.count
    for extent in weight.shape:
        size *= extent
    return float(size)


def _is_head(weight: Weight, spec: ModelSpec) -> bool:
    return spec.tied_embeddings and not spec.embeds and weight.part == "embedding" and not weight.tied


def _grouped(blocks: tuple[Block, ...]) -> list[tuple[Block, int]]:
    counts: dict[int, int] = {}
    for block in blocks:
        counts[id(block)] = counts.get(id(block), 0) + 1
    return [(block, counts[key]) for key, block in {id(b): b for b in blocks}.items()]


def _alike(blocks: tuple[Block, ...]) -> list[tuple[Block, int]]:
    seen: dict[object, tuple[Block, int]] = {}
    for block in blocks:
        first, count = seen.get(block.mixer, (block, 0))
        seen[block.mixer] = (first, count + 1)
    return [pair for pair in seen.values() if pair[0].mixer.kind != "none"]


def _attention(block: Block, count: int) -> Attention:
    mixer = block.mixer
    state = 0
    for shape in mixer.state:
        size = 1
        for extent in shape:
            size *= extent
        state += size
    return Attention(
        kind=mixer.kind, layers=count, heads=mixer.heads, kv_heads=mixer.kv_heads,
        key_dim=mixer.rope_dim if mixer.kind == "mla" else mixer.head_dim,
        value_dim=mixer.value_dim or mixer.head_dim, window=mixer.window,
        latent=mixer.kv_lora_rank + mixer.rope_dim if mixer.kind == "mla" else 0, state=state,
    )  # fmt: skip


class Format(NamedTuple):
    """How the weights of matrix multiplications are held and multiplied."""

    name: str
    bits: float
    """Bits per weight, scales included."""
    dtype: str = "float16"
    """The card's arithmetic, where it has it."""
    experts_only: bool = False
    rest: float | None = None
    """Bits per weight of what is no routed expert, where they differ."""

    @property
    def others(self) -> float:
        """Bits per weight of what is quantized beside the routed experts."""
        return max(self.bits, 16.0) if self.experts_only else self.rest or self.bits

    @property
    def weight_only(self) -> bool:
        """Activations stay in 16 bit, so large batches gain no arithmetic."""
        return self.bits < 16 and self.dtype == "float16"


PARTS = ("gptq-int8", "gptq", "awq", "nvfp4", "mxfp4", "w8a8", "w4a16", "fp8", "int8", "int4", "nf4")
"""Looked for inside longer names ("awq gemm", "int4(QAT weights)"), in this order."""


@cache
def _formats() -> dict[str, Any]:
    return dict(files.table(__file__, "../data/formats.json"))


@cache
def _rows() -> dict[str, Format]:
    """Every format by each of its names."""
    found = {}
    for row in _formats()["rows"]:
        made = Format(row["name"], row["bits"], row.get("dtype", "float16"))
        found.update(dict.fromkeys((row["name"], *row.get("also", ())), made))
    for name, row in catalogue.formats().items():
        if name.startswith("gguf-"):
            found[name] = Format(name, row["bits"])
            found.setdefault(name.removeprefix("gguf-"), found[name])
    return found


def names() -> tuple[str, ...]:
    """Every format once."""
    return tuple(dict.fromkeys(row.name for row in _rows().values()))


def format_of(name: str | None, shape: Shape, card: Card) -> Format:
    """The format of a quantization's name on this card; None: as the checkpoint is stored."""
    chosen = _scoped(_named(name if name is not None else (shape.stored or "none")), name, shape)
    return chosen._replace(dtype=_arithmetic(chosen, card))


@cache
def _named(name: str) -> Format:
    word = name.strip().lower().rstrip("?").replace("gguf_", "gguf-")
    found = _rows().get(word)
    if found:
        return found
    weights = re.search(r"(\d+(?:\.\d+)?)\s*(?:bpw|bit|-bit)", word)
    if weights and 1 <= float(weights.group(1)) <= 32:
        return Format(word, float(weights.group(1)))
    for known in PARTS:
        if known in word:
            return _rows()[known]
    raise UnknownName(
        f"unknown quantization {name!r}", hint=f"known: {', '.join(names()[:17])}, gguf-q4_k_m, ..."
    )


def _scoped(chosen: Format, asked: str | None, shape: Shape) -> Format:
    """4-bit floats and the stored 4-bit formats of MoE models cover the experts alone."""
    if shape.experts_stored and (asked is None or asked == shape.stored):
        return chosen._replace(bits=_named(shape.experts_stored).bits, rest=chosen.bits)
    four = chosen.bits < 5 and bool(shape.experts)
    if asked and asked.lower() == "fp4":
        chosen = _rows()["mxfp4" if shape.stored == "mxfp4" else "nvfp4"]
    if four and shape.experts_only and shape.stored not in {None, "fp8"}:
        return chosen._replace(experts_only=True)
    return chosen


def _arithmetic(chosen: Format, card: Card) -> str:
    if chosen.bits >= 16:
        return chosen.dtype if chosen.dtype == "float32" else "float16"
    ladder = {"float4": ("float4", "float8"), "float8": ("float8",), "int8": ("int8",)}.get(chosen.dtype, ())
    if chosen.dtype == "float4" and "float4" not in card.flops:
        ladder = ()
    return next((kind for kind in ladder if card.flops.get(kind)), "float16")
