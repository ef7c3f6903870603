"""Modules that models are made of: tuples of weights with their split over cards; what a recipe gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from memserve.model.config import Config
from memserve.model.spec import Block, Part, Shard, Weight

Switch: TypeAlias = "bool | str"
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


class Moe(NamedTuple):
    """A mixture of experts: which fields give its sizes, and which layers have it."""

    experts: str = "num_experts"
    per_token: str = "num_experts_per_tok"
    width: str = "moe_intermediate_size"
    shared_width: str = ""
    """Field with the shared expert's width."""
    shared_count: str = ""
    """Field with the number of shared experts, each as wide as a routed one."""
    shared_gate: bool = False
    router_bias: bool = False
    correction: Switch = False
    """The router's score correction is a parameter, not a buffer."""
    expert_bias: bool = False
    gated: bool = True
    layers: Literal["all", "first_dense", "steps", "interval"] = "all"
    first: str | int = "first_k_dense_replace"
    """With `first_dense`: how many layers in front have no experts, or the field that says it."""


class Family(NamedTuple):
    """One family of decoders."""

    qkv_bias: Switch = False
    out_bias: Switch = False
    qk_norm: Literal["", "head", "full", "heads"] = ""
    """A norm over each head's width, over all heads together, or with a weight for each head."""
    qk_norm_if: Switch = True
    sinks: bool = False
    norm: Literal["rms", "layer", "scale", "bare"] = "rms"
    norms: tuple[str, ...] = TWO_NORMS
    switched_norms: tuple[str, ...] = ()
    norm_switch: str = ""
    """Field that turns `switched_norms` on; with a `-` in front, off."""
    gate: Literal["", "head", "full"] = ""
    """Attention's output gate: a value for each head, or for each channel."""
    extras: tuple[tuple[str, str], ...] = ()
    """Further vectors of a layer: name, and the field with their length (`1`: one number)."""
    final_norm: str = "norm"
    mlp: Literal["gated", "fused", "plain"] = "gated"
    mlp_bias: Switch = False
    mlp_names: tuple[str, str] = ("up_proj", "down_proj")
    width: str = "intermediate_size"
    moe: Moe | None = None
    head_bias: Switch = False
    value_dim: str = ""
    """Field with the width of a value head, where it is not the key's."""
    windows: str = "none"
    """Rule for layers without full attention where the config has no `layer_types`; see `layers`."""
    positions: str = ""
    """Field with the rows of a learned position table."""
    position_offset: int = 0
    embed_norm: bool = False
    attention: str = "self_attn"
    out_name: str = "o_proj"
    ties: bool = True
    """Whether the output matrix may be the token table."""


def on(config: Config, switch: Switch) -> bool:
    """The state of a switch in one config."""
    return switch if isinstance(switch, bool) else config.flag(switch)


Weights: TypeAlias = tuple[Weight, ...]


def linear(name: str, out: int, into: int, shard: Shard = "replicated", *, bias: bool = False,
           part: Part = "attention", count: int = 1) -> Weights:  # fmt: skip
    """A matrix (and bias) of a quantizable multiplication; a row-split matrix keeps its bias whole."""
    weight = Weight(name, part, (out, into), shard, count, linear=True)
    if not bias:
        return (weight,)
    return (weight, Weight(f"{name}.bias", part, (out,), "replicated" if shard == "row" else shard, count))


def vector(name: str, *shape: int, part: Part = "other", shard: Shard = "replicated",
           count: int = 1) -> Weights:  # fmt: skip
    """A bare parameter that no quantization touches."""
    return (Weight(name, part, shape, shard, count),)


def norm(name: str, width: int, kind: str = "rms", count: int = 1) -> Weights:
    """`rms` and `scale` keep a weight, `layer` a weight and a bias, `bare` nothing."""
    if kind == "bare":
        return ()
    weight = Weight(name, "norm", (width,), "replicated", count)
    return (weight,) if kind != "layer" else (weight, Weight(f"{name}.bias", "norm", (width,), count=count))


def embedding(name: str, rows: int, width: int) -> Weights:
    """A token table, split by padded vocabulary rows."""
    return (Weight(name, "embedding", (rows, width), "vocab"),)


def positions(name: str, rows: int, width: int) -> Weights:
    """A table of learned positions."""
    return (Weight(name, "position", (rows, width)),)


def head(rows: int, width: int, *, tied: bool, bias: bool = False, name: str = "lm_head") -> Weights:
    """The output matrix; a tied one is an alias of the token table."""
    matrix = Weight(name, "head", (rows, width), "vocab", linear=True, tied=tied)
    return (matrix, Weight(f"{name}.bias", "head", (rows,), "vocab")) if bias else (matrix,)


def under(name: str, weights: Weights, part: Part = "tower") -> Weights:
    """The weights of a tower or a projector, under its name."""
    return tuple(replace(w, name=f"{name}.{w.name}", part=part) for w in weights)


def gated_mlp(name: str, hidden: int, width: int, *, bias: bool = False, part: Part = "mlp",
              fused: bool = False) -> Weights:  # fmt: skip
    """SwiGLU and its kin: gate and up side by side, then down."""
    up = (
        [(f"{name}.gate_up_proj", 2 * width)]
        if fused
        else [(f"{name}.gate_proj", width), (f"{name}.up_proj", width)]
    )
    wide = [w for n, size in up for w in linear(n, size, hidden, "column", bias=bias, part=part)]
    return (*wide, *linear(f"{name}.down_proj", hidden, width, "row", bias=bias, part=part))


def plain_mlp(name: str, hidden: int, width: int, *, bias: bool = True, part: Part = "mlp",
              names: tuple[str, str] = ("up_proj", "down_proj")) -> Weights:  # fmt: skip
    """Two matrices with an activation between."""
    first, second = (f"{name}.{n}" if name else n for n in names)
    return (
        *linear(first, width, hidden, "column", bias=bias, part=part),
        *linear(second, hidden, width, "row", bias=bias, part=part),
    )


def experts(name: str, count: int, hidden: int, width: int, *, gated: bool = True,
            bias: bool = False) -> Weights:  # fmt: skip
    """Routed experts, each its own matrices."""
    sides = (
        (("gate_proj", width, hidden), ("up_proj", width, hidden)) if gated else (("up_proj", width, hidden),)
    )
    found: list[Weight] = []
    for side, out, into in (*sides, ("down_proj", hidden, width)):
        found.append(Weight(f"{name}.{side}", "expert", (out, into), "expert", count, linear=True))
        if bias:
            found.append(Weight(f"{name}.{side}.bias", "expert", (out,), "expert", count))
    return tuple(found)


class Inventory(NamedTuple):
    """The body of a model."""

    blocks: tuple[Block, ...]
    stem: Weights
    top: Weights
    towers: Weights = ()
    encoder: tuple[Block, ...] = ()
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    tied: bool = False
    rope_dim: int = 0
    encoder_only: bool = False
    exact: bool = True
    """False: estimated from the fields of a family that has no recipe."""
    head_width: int | None = None
    """Width the output matrix reads, where it is not `hidden`."""

    def adding(self, *, stem: Weights = (), top: Weights = (), towers: Weights = ()) -> Inventory:
        """The same body with more weights."""
        return self._replace(stem=(*self.stem, *stem), top=(*self.top, *top), towers=(*self.towers, *towers))


GENERATIVE = ("ForCausalLM", "ForConditionalGeneration", "ForImageTextToText")


def labels(config: Config) -> int:
    """Classes a classifier tells apart: `id2label`, else `num_labels`, else two."""
    names = config.given.get("id2label")
    if isinstance(names, dict):
        return len(names)
    return config.size("num_labels", 2)


def task_of(architecture: str) -> str:
    """The part of a class name that says what it is for; empty for a bare body."""
    if architecture.endswith("LMHeadModel"):
        return "ForCausalLM"
    return architecture[architecture.rindex("For") :] if "For" in architecture else ""


def with_head(config: Config, body: Inventory, architecture: str, family: Family | None = None) -> Inventory:
    """A decoder's body with what its class adds; a config that names no class means the generating one."""
    family = family or Family()
    hidden = body.head_width or body.hidden
    tied = family.ties and config.flag("tie_word_embeddings")
    kind = task_of(architecture or "ForCausalLM")
    if kind in GENERATIVE:
        bias = on(config, family.head_bias)
        return body.adding(top=head(body.vocabulary, hidden, tied=tied, bias=bias))
    if kind == "ForSequenceClassification":
        return body.adding(top=linear("score", labels(config), hidden, part="head"))
    if kind == "ForTokenClassification":
        return body.adding(top=linear("score", labels(config), hidden, bias=True, part="head"))
    if kind == "ForQuestionAnswering":
        return body.adding(top=linear("qa_outputs", 2, hidden, bias=True, part="head"))
    return body
