"""LMDeploy's TurboMind: weights first, then a share of what is left as KV blocks, then the passes."""

from functools import cache
from typing import Any

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Footprint
from memserve.hardware.machine import GIB, Machine
from memserve.memory.kv import element_bytes, forward_bytes, largest_context, sequence_bytes, stage_caches
from memserve.memory.weights import Split, rope_bytes, stage_bytes, storage
from memserve.model.spec import ModelSpec

ERROR = 0.08
"""Two start-ups of this engine are in the validation set, too few for more: an estimate."""
ELEMENT = 2


@cache
def facts() -> dict[str, Any]:
    """The rows of memory.json."""
    read: dict[str, Any] = files.table(__file__, "memory.json")
    return read


class LmdeployAccountant:
    """TurboMind takes `cache_max_entry_count` of the free memory; passes must live in the rest."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide one card as TurboMind does."""
        total, tensor = machine.card.memory, deployment.layout.tensor
        held_in = storage(model, deployment.quantization, deployment.dtype)
        weights = max(stage_bytes(model, Split(tensor, tensor, tensor), held_in)) + rope_bytes(model)
        non_torch, activation = _non_torch(tensor), self._pass(model, deployment)
        free = total - weights - non_torch
        share = facts()["cache_share"]["value"] if deployment.utilization is None else deployment.utilization
        pool = deployment.kv_bytes or max(0, int(free * share))
        per_block = self._block_bytes(model, deployment)
        tokens = pool // per_block * facts()["block"]["value"] if per_block else 0
        footprint = Footprint(
            total=total, usable=total, weights=weights, activation=activation, non_torch=non_torch, graphs=0,
            kv_cache=pool, kv_tokens=tokens, max_concurrency=tokens / deployment.context, error=ERROR,
        )  # fmt: skip
        return _judged(footprint, deployment)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest session that the pool holds."""
        return largest_context(self, model, machine, deployment)

    def _block_bytes(self, model: ModelSpec, deployment: Deployment) -> int:
        """A block of 64 tokens over all layers on one card; sliding layers keep every token."""
        tensor = deployment.layout.tensor
        block: int = facts()["block"]["value"]
        (caches,) = stage_caches(model, 1, tensor, element_bytes(deployment.kv_dtype, deployment.dtype))
        extra: int = facts()["kv_extra_bytes"].get(deployment.kv_dtype, 0)
        heads = sum(2 * max(1, -(-b.mixer.kv_heads // tensor)) for b in model.blocks if b.mixer.kv_heads)
        return sequence_bytes(caches, block) + block * heads * extra

    def _pass(self, model: ModelSpec, deployment: Deployment) -> int:
        """A prefill pass, and float32 logits of a full batch."""
        rows = facts()
        tokens: int = deployment.max_batched_tokens or rows["prefill_tokens"]["value"]
        batch: int = deployment.max_sequences or rows["batch"]["value"]
        logits = 4 * batch * model.vocabulary
        return forward_bytes(model, tokens, ELEMENT, deployment.layout.tensor) + logits


def _non_torch(tensor: int) -> int:
    row = facts()["non_torch_gib"]
    return int((row["value"] + (row["per_rank"] if tensor > 1 else 0.0)) * GIB)


def _judged(footprint: Footprint, deployment: Deployment) -> Footprint:
    gib = f"{footprint.weights / GIB:.2f} GiB of weights"
    if footprint.weights + footprint.non_torch > footprint.total:
        return footprint.fails("out_of_memory", f"{gib} exceed the card's {footprint.total / GIB:.2f} GiB")
    if footprint.free < 0:
        passes = f"{footprint.activation / GIB:.2f} GiB"
        return footprint.fails(
            "out_of_memory",
            f"{gib} and the KV pool leave less than the {passes} of a prefill pass: "
            "lower cache_max_entry_count",
        )
    if footprint.kv_tokens < deployment.context:
        return footprint.fails(
            "refused",
            f"the KV pool holds {footprint.kv_tokens:,} tokens; "
            f"a session of {deployment.context:,} is asked for",
        )
    return footprint


accountant = LmdeployAccountant()
