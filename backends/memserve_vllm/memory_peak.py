"""What vLLM's profiling run takes above the weights: sampler, forward pass, experts, vision, graphs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from memserve.memory.formats import DTYPE_BYTES
from memserve_vllm.memory_facts import GIB, by_ranks, card_fact, fact

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine
    from memserve.memory.account import Deployment
    from memserve.model.spec import Block, ModelSpec
    from memserve_vllm.memory_batch import Batch

FORWARD_COPIES = 3
"""Widths of the residual stream and of the FFN that are alive at once in a layer."""


@dataclass(frozen=True)
class Peak:
    """Bytes of the torch peak on one rank of the first and of the last stage."""

    first: int
    last: int


def peak(model: ModelSpec, deployment: Deployment, batch: Batch) -> Peak:
    """The torch peak above the weights while vLLM profiles its largest batch."""
    version = deployment.engine_version
    element = DTYPE_BYTES.get(deployment.dtype, 2)
    ranks = deployment.layout.tensor
    flow = batch.tokens * model.hidden * element
    forward = forward_bytes(model, batch.tokens, ranks, element)
    hidden = fact("hidden", version)
    base = hidden["base"] * GIB
    extra = experts_bytes(model, deployment, batch.tokens, element)
    extra = extra * fact("experts_add", version)["value"]
    sampler = sampler_bytes(model, version, batch, element)
    first = max(forward + 2 * flow * (deployment.layout.pipeline > 1), extra)
    last = max(sampler + hidden["factor"] * flow + extra, forward)
    vision = vision_bytes(model, deployment, batch, element)
    return Peak(round(max(first + base, vision)), round(max(last + base, vision)))


def sampler_bytes(model: ModelSpec, version: str, batch: Batch, element: int) -> float:
    """The dummy sampler's rows: 16-bit logits, their float32 copies and what sorting them takes."""
    row = fact("sampler", version)
    if not batch.v1 and batch.chunked:
        return 0.0
    if not row["bytes"]:
        return batch.sequences * model.vocabulary * 8.0
    return float(batch.sequences * model.vocabulary * (row["bytes"] + element))


def forward_bytes(model: ModelSpec, tokens: int, ranks: int, element: int) -> float:
    """The widest moment of one layer over the whole batch."""
    return tokens * element * FORWARD_COPIES * (model.hidden + dense_width(model) / ranks)


def dense_width(model: ModelSpec) -> int:
    """The FFN that every token passes: the dense one, or the shared experts'."""
    if not any(block.experts for block in model.blocks):
        return model.intermediate
    shared = [
        w.shape[0] for b in model.blocks for w in b.weights if w.part in ("shared_expert", "mlp") and w.linear
    ]
    return max(shared, default=0)


def experts_bytes(model: ModelSpec, deployment: Deployment, tokens: int, element: int) -> float:
    """Fused-expert buffers: the two inner products and the gathered outputs of every chosen expert."""
    routed = next((block for block in model.blocks if block.experts), None)
    if routed is None:
        return 0.0
    inner = expert_width(routed, model.hidden)
    layout = deployment.layout
    inner = inner if layout.expert else -(-inner // (layout.tensor * layout.data))
    rows = tokens * routed.experts_per_token
    return float(rows * element * (max(2 * inner, model.hidden) + inner))


def expert_width(block: Block, hidden: int) -> int:
    """The inner width of one expert."""
    sizes = [prod(w.shape) for w in block.weights if w.part == "expert" and len(w.shape) > 1]
    return min(sizes, default=0) // max(hidden, 1)


def vision_bytes(model: ModelSpec, deployment: Deployment, batch: Batch, element: int) -> float:
    """Profiling a multimodal model with its largest image."""
    return 0.0


def non_torch_bytes(machine: Machine, deployment: Deployment) -> int:
    """Communication buffers and what libraries allocate past torch."""
    row = card_fact("non_torch", deployment.engine_version, machine.card)
    layout = deployment.layout
    if layout.tensor == 1 and layout.pipeline > 1 and "pipeline" in row:
        return round(row["pipeline"] * GIB)
    return round(by_ranks(row["tensor"], layout.tensor) * GIB)


def graph_bytes(model: ModelSpec, deployment: Deployment, batch: Batch) -> int:
    """What capturing CUDA graphs takes."""
    if deployment.eager:
        return 0
    return round((0.25 + 0.015 * len(model.blocks)) * GIB)
