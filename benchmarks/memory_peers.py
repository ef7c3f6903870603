"""What other planners say of the same start, as the formulas that their releases hold.

None of them answers offline from a config.json and a command, so their rules are written out here, each
with the release in which it was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memserve.plan.plan import Plan

GIB = 1024**3
ACTIVATION = {
    "Llama": 1.89, "Qwen2": 2.25, "Qwen3Moe": 2.68, "Qwen3": 2.21, "Gemma2": 3.65, "Gemma3": 3.94,
    "DeepseekV2": 1.93, "Granite": 0.85,
}  # fmt: skip
"""llm-d-planner 0.3.3 capacity_planner.py: GiB per architecture."""


@dataclass(frozen=True)
class Answer:
    """GiB per card; nan where a planner has no such figure."""

    weights: float
    kv_cache: float


def ours(plan: Plan) -> Answer:
    """memserve."""
    memory = plan.memory_gib_per_card or {}
    return Answer(memory["weights"], memory["kv_cache"])


def checkpoint_gib(plan: Plan) -> float:
    """The checkpoint's bytes over the cards: what hf-mem and llm-d-planner read from safetensors headers."""
    from memserve.memory.weights import Split, stage_bytes, storage

    deployment = plan.deployment
    held_in = storage(plan.model, deployment.quantization, "bfloat16")
    return stage_bytes(plan.model, Split(), held_in)[0] / GIB / deployment.layout.cards


def hf_mem(plan: Plan) -> Answer:
    """hf-mem 0.5.6: the headers' bytes, no overhead, no budget."""
    return Answer(checkpoint_gib(plan), nan)


def llm_d_planner(plan: Plan) -> Answer:
    """llm-d-planner 0.3.3: weights / (tp pp), activation by architecture, non-torch by tp."""
    layout = plan.deployment.layout
    default = 2.5 if any(block.experts for block in plan.model.blocks) else 2.0
    activation = next((v for k, v in ACTIVATION.items() if plan.model.architecture.startswith(k)), default)
    non_torch = 2.10 if layout.tensor > 1 else 0.07 if layout.pipeline > 1 else 0.27
    weights = checkpoint_gib(plan)
    usable = (plan.memory_gib_per_card or {})["usable"]
    return Answer(weights, usable - weights - activation / (layout.tensor * layout.pipeline) - non_torch)


def aiconfigurator(plan: Plan) -> Answer:
    """aiconfigurator 0.12: activation from a coefficient by tp, NCCL, 3.5 GiB for the rest, 2 % held back."""
    deployment, model = plan.deployment, plan.model
    tensor = deployment.layout.tensor
    routed = any(block.experts for block in model.blocks)
    factors = {1: 22, 2: 13, 4: 10, 8: 10} if routed else {1: 11, 2: 6.5, 4: 5, 8: 5}
    width = max(block.mixer.heads * block.mixer.head_dim for block in model.blocks)
    tokens = deployment.max_batched_tokens or 8192
    activation = max(2 * tokens * width * factors.get(tensor, 5) / GIB, 70 / 1024)
    nccl = {1: 0.0, 2: 342 / 1024}.get(tensor, 392 / 1024)
    weights = checkpoint_gib(plan)
    usable = (plan.memory_gib_per_card or {})["usable"]
    return Answer(weights, usable * 0.98 - weights - activation - nccl - 3.5)


def gpustack(plan: Plan) -> Answer:
    """gpustack 2.3.0 estimate_model_vram: 1.2 x weights + 2 GiB over all cards, no KV."""
    cards = plan.deployment.layout.cards
    return Answer((1.2 * checkpoint_gib(plan) * cards + 2) / cards, nan)


PEERS = {
    "memserve": ours, "llm-d-planner 0.3.3": llm_d_planner, "aiconfigurator 0.12": aiconfigurator,
    "hf-mem 0.5.6": hf_mem, "gpustack 2.3": gpustack,
}  # fmt: skip
