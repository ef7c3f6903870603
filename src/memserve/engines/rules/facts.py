"""What rules may ask about: flat facts of a machine, a model and a deployment, and checks by name."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from memserve.engines.deployment import Deployment
from memserve.engines.rules import within
from memserve.hardware.machine import Machine
from memserve.model.spec import Mixer, ModelSpec, Weight, remembered

DTYPE_WORDS = {"half": "float16", "float": "float32"}
"""What engines take for a dtype besides its name."""
ATTENTION = frozenset({"full", "sliding", "chunked", "mla", "cross"})


def machine_facts(machine: Machine) -> dict[str, Any]:
    """The card and how many there are."""
    card = machine.card
    capability = "unknown" if card.capability is None else f"{card.capability[0]}.{card.capability[1]}"
    return {
        "vendor": card.vendor, "sm": card.sm, "soc": card.soc, "card": card.name, "capability": capability,
        "cards": machine.cards, "cards_per_node": machine.cards_per_node, "nodes": machine.nodes,
    }  # fmt: skip


def model_facts(model: ModelSpec) -> dict[str, Any]:
    """Shapes that decide what an engine accepts."""
    return remembered(model, "facts", lambda: _model_facts(model))


def _model_facts(model: ModelSpec) -> dict[str, Any]:
    mixers = [block.mixer for block in model.blocks]
    attention = [mixer for mixer in mixers if mixer.kind in ATTENTION]
    widest = max(attention, key=lambda mixer: mixer.heads, default=None)
    return {
        "model": model.id, "architecture": model.architecture, "model_type": model.model_type,
        "encoder_only": model.encoder_only, "pooled": model.pooling is not None,
        "scoring_tokens": ", ".join(model.scoring_tokens) or None,
        "encoder_decoder": bool(model.encoder),
        "layers": len(model.blocks), "hidden": model.hidden, "intermediate": model.intermediate,
        "vocabulary": model.vocabulary, "max_context": model.max_context, "stored_dtype": model.dtype,
        "experts": max((block.experts for block in model.blocks), default=0),
        "multimodal": bool(model.towers), "remote_code": model.remote_code,
        "mixers": frozenset(mixer.kind for mixer in mixers),
        "mla": any(mixer.kind == "mla" for mixer in mixers),
        "recurrent": any(mixer.kind in ("linear", "mamba") for mixer in mixers),
        "row_inputs": _row_inputs(model), "expert_inputs": _expert_inputs(model),
        **_attention_facts(widest, attention), **_storage_facts(model),
    }  # fmt: skip


def _attention_facts(widest: Mixer | None, attention: list[Mixer]) -> dict[str, Any]:
    return {
        "heads": widest.heads if widest else 0,
        "kv_heads": widest.kv_heads if widest else 0,
        "kv_heads_all": frozenset(mixer.kv_heads for mixer in attention if mixer.kv_heads),
        "head_dim": max((mixer.head_dim for mixer in attention), default=0),
    }


def _row_inputs(model: ModelSpec) -> tuple[int, ...]:
    """Input widths of the quantizable matrices that tensor parallelism cuts along their input."""
    return _widths(model, lambda weight: weight.shard == "row")


def _expert_inputs(model: ModelSpec) -> tuple[int, ...]:
    """The same of experts, which may also stay whole; none where they are stored in a format of their own."""
    others = model.quantization.others if model.quantization else ()
    if any("mlp.experts" in other.targets for other in others):
        return ()
    return _widths(model, lambda weight: weight.shard == "expert" and weight.shape[-2:-1] == (model.hidden,))


def _widths(model: ModelSpec, cut: Callable[[Weight], bool]) -> tuple[int, ...]:
    blocks = {id(block): block for block in model.blocks}.values()
    found = {
        weight.shape[-1] for block in blocks for weight in block.weights if weight.linear and cut(weight)
    }
    return tuple(sorted(found))


def _storage_facts(model: ModelSpec) -> Mapping[str, Any]:
    stored = model.quantization
    if stored is None:
        return {"stored": None, "bits": 16, "group": None, "block": None, "quant_method": None}
    return {
        "stored": stored.method, "bits": stored.bits, "group": stored.group_size,
        "block": stored.block and stored.block[0], "quant_method": stored.checkpoint_method,
        "quant_format": stored.format,
    }  # fmt: skip


def deployment_facts(deployment: Deployment) -> dict[str, Any]:
    """What is asked of the engine."""
    layout = deployment.layout
    return {
        "quantization": deployment.quantization, "family": deployment.quantization.split("-")[0],
        "dtype": DTYPE_WORDS.get(deployment.dtype, deployment.dtype), "kv_dtype": deployment.kv_dtype,
        "tp": layout.tensor, "pp": layout.pipeline, "dp": layout.data, "expert_parallel": layout.expert,
        "attention_data": layout.attention_data, "world": layout.cards, "context": deployment.context,
        "max_sequences": deployment.max_sequences, "max_batched_tokens": deployment.max_batched_tokens,
        "eager": deployment.eager, "options": dict(deployment.options),
        "kernel": deployment.option("quantization"), "given": _given(deployment),
    }  # fmt: skip


def _given(deployment: Deployment) -> frozenset[str]:
    """The command's own flags, and the variables before it, that are not turned off."""
    pairs = (*deployment.options, *deployment.env)
    return frozenset(name.partition(".")[0] for name, value in pairs if value not in ("", "0", "false"))


Check: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any] | None]

DEFAULT_GROUP = 128


def heads(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Attention heads must divide evenly over the tensor ranks."""
    return {} if known["heads"] and known["heads"] % known["tp"] else None


def kv_heads(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """KV heads are split evenly or replicated evenly."""
    if known["mla"]:
        return None
    tp = known["tp"]
    uneven = [count for count in known["kv_heads_all"] if count % tp and tp % count]
    return {"kv_heads": uneven[0]} if uneven else None


def cut_inputs(known: Mapping[str, Any]) -> tuple[int, ...]:
    """Input widths that tensor parallelism cuts: those of experts only where they do not stay whole."""
    rows: tuple[int, ...] = known["row_inputs"]
    return rows if known["expert_parallel"] else (*rows, *known["expert_inputs"])


def groups(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rank's share of every quantized input must be whole groups of scales."""
    group = known["group"] or DEFAULT_GROUP
    if group <= 0:
        return None
    uneven = [width for width in cut_inputs(known) if width % (known["tp"] * group)]
    return {"width": uneven[0], "group": group, "whole": f"{uneven[0] / group:g}"} if uneven else None


def blocks(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rank's share of every block-scaled matrix must be whole blocks."""
    block = known["block"]
    if not block:
        return None
    uneven = [width for width in cut_inputs(known) if width % (known["tp"] * block)]
    return {"width": uneven[0], "block": block, "share": f"{uneven[0] / known['tp']:g}"} if uneven else None


def layers(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Each pipeline stage needs a layer."""
    return {} if known["pp"] > known["layers"] else None


def world(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The layout cannot take more cards than there are."""
    return {} if known["world"] > known["cards"] else None


def one_node(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The engine runs on one node: of several it takes the cards of one."""
    return {} if known["world"] > known["cards_per_node"] else None


def batch(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A step holds a token of every sequence."""
    tokens, sequences = known["max_batched_tokens"], known["max_sequences"]
    return {} if tokens and sequences and tokens < sequences else None


def attention_data(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Groups of replicated attention must divide the tensor ranks."""
    return {} if known["tp"] % known["attention_data"] else None


def context(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The context cannot exceed what the model was made for."""
    longest = known["max_context"]
    return {} if longest and known["context"] > longest else None


def architecture_missing(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """No release implements this architecture, nor can the engine borrow transformers' code for it."""
    row, table = known["architecture_row"], known["architecture_table"]
    if row is not None or not table:
        return None
    fallback = table.get("fallback_since")
    decoder = not (known["encoder_only"] or known["encoder_decoder"])
    return None if fallback and decoder and within(known["version"], fallback, None) else {}


def architecture_since(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The release is not newer than the last one that lacked this architecture."""
    row = known["architecture_row"]
    early = row is not None and row[0] and within(row[0], known["version"], None)
    return {"lacking": row[0], "since": row[1]} if early else None


def architecture_since_base(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same for a plug-in, whose post releases drive one release of the engine below."""
    return architecture_since({**known, "version": known["version"].partition(".post")[0]})


def architecture_removed(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A later release than the last one that had this architecture."""
    row = known["architecture_row"]
    gone = row is not None and len(row) > 2 and not within(row[2], known["version"], None)
    return {"last": row[2]} if gone else None


CHECKS: dict[str, Check] = {
    "heads": heads, "kv_heads": kv_heads, "groups": groups, "blocks": blocks, "layers": layers,
    "world": world, "one_node": one_node, "context": context, "batch": batch,
    "attention_data": attention_data,
    "architecture_missing": architecture_missing, "architecture_since": architecture_since,
    "architecture_since_base": architecture_since_base, "architecture_removed": architecture_removed,
}  # fmt: skip
