"""What rules may ask about: flat facts of a machine, a model and a deployment."""

from collections.abc import Callable, Mapping
from typing import Any

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Machine
from memserve.model.memo import remembered
from memserve.model.spec import Mixer, ModelSpec, Weight

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
        "eager": deployment.eager, "options": dict(deployment.options),
        "kernel": deployment.option("quantization"),
    }  # fmt: skip
