"""How SGLang divides one card: a fraction of what is free before loading, less the weights, is KV.

Read in srt/model_executor/model_runner_kv_cache_mixin.py (0.5.7) and pool_configurator.py (0.5.12, 0.5.23):
KV = free after loading - free before loading x (1 - mem_fraction_static); activations and graphs live in
the rest.
"""

from dataclasses import replace

from memserve.engines.deployment import Deployment
from memserve.engines.memory import Footprint
from memserve.hardware.machine import GIB, Machine
from memserve.memory.weights import Split, absorbed_bytes, rope_bytes, stage_bytes, storage
from memserve.model.spec import ModelSpec
from memserve_sglang.memory_facts import fact
from memserve_sglang.memory_fraction import fraction
from memserve_sglang.memory_pools import pools

TABLE_BYTES = 4
"""Rotary tables are float32 on CUDA (srt/layers/rotary_embedding.py)."""


class SglangAccountant:
    """SGLang's own start-up, as arithmetic."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card's memory as SGLang would."""
        deployment = settled(model, deployment)
        total = machine.card.memory
        share = fraction(model, machine, deployment)
        outside = self.context_bytes(machine, deployment)
        weights = self.weights(model, machine, deployment)
        available = int((total - outside) * share) - weights
        held = pools(model, machine, deployment, available)
        usable = int(total * share)
        requests = held.tokens / max(1, deployment.context) if held.token_bytes else deployment.concurrency
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=0, non_torch=int(outside * share),
            graphs=0 if deployment.eager else graph_bytes(model, deployment),
            kv_cache=max(0, available) if held.token_bytes else 0,
            kv_tokens=held.tokens, max_concurrency=requests,
            error=fact("error", deployment.engine_version, machine.card)["value"],
        )  # fmt: skip
        empty = available <= 0 or (held.token_bytes > 0 and held.tokens <= 0)
        return judged(footprint, total - outside, empty, share)

    def context_bytes(self, machine: Machine, deployment: Deployment) -> int:
        """What is already taken when SGLang measures the free memory."""
        row = fact("context_gib", deployment.engine_version, machine.card)
        return int(row["spread" if deployment.layout.tensor > 1 else "alone"] * GIB)

    def weights(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """Weights of the fullest rank, as the drop in free memory that SGLang prints."""
        layout = deployment.layout
        attention = max(1, layout.tensor // layout.attention_data)
        split = Split(layout.tensor, attention, layout.tensor, layout.expert)
        held_in = storage(model, deployment.quantization, deployment.dtype)
        beside = rope_bytes(model, TABLE_BYTES) + absorbed_bytes(model, attention) // layout.pipeline
        slack = fact("loading_gib", deployment.engine_version, machine.card)["value"]
        return max(stage_bytes(model, split, held_in, layout.pipeline)) + beside + int(slack * GIB)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that `deployment` could be started with on this machine; 0: none."""
        longest = model.max_context or deployment.context
        found = self.account(model, machine, replace(deployment, context=longest))
        if found.outcome != "runs":
            return 0
        return min(longest, found.kv_tokens) if found.kv_cache else longest  # an encoder keeps no cache


def settled(model: ModelSpec, deployment: Deployment) -> Deployment:
    """The deployment with `auto` made definite."""
    dtype = deployment.dtype
    if dtype in ("auto", ""):
        dtype = "bfloat16" if model.dtype == "bfloat16" else "float16"
    return replace(deployment, dtype=dtype, kv_dtype=deployment.kv_dtype or "auto")


def graph_bytes(model: ModelSpec, deployment: Deployment) -> int:
    """What capturing decode graphs takes, outside the fraction."""
    largest = int(float(deployment.option("cuda-graph-max-bs") or deployment.max_sequences or 160))
    return round((0.3 + 0.012 * len(model.blocks) * min(largest, 256) / 160) * GIB)


def judged(footprint: Footprint, free: int, empty: bool, share: float) -> Footprint:
    """The division with what memory says of it."""
    gib = f"{footprint.weights / GIB:.2f} GiB of weights"
    if footprint.weights > free:
        return footprint.fails("out_of_memory", f"{gib} exceed the {free / GIB:.2f} GiB that are free")
    if empty:
        need = footprint.weights / free
        return footprint.fails(
            "refused", f"{gib} leave no memory for the KV cache within mem_fraction_static {share:g}; "
            f"it takes more than {need:.3f}")  # fmt: skip
    return footprint


accountant = SglangAccountant()
