"""How a family of decoders differs from the plain Llama layer: rows of data, read by `decoder`.

A switch is True, False, or the name of the config field that holds it.
"""

from typing import Literal, NamedTuple, TypeAlias

from memserve.model.config import Config

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
