"""How MindIE divides one NPU: a fraction of the card, less weights and runtime, is its KV cache."""

from memserve.engines.deployment import Deployment
from memserve.engines.memory import Footprint
from memserve.hardware.machine import GIB, Machine
from memserve.memory.kv import element_bytes, forward_bytes, largest_context, sequence_bytes, stage_caches
from memserve.memory.weights import Split, rope_bytes, stage_bytes, storage
from memserve.model.spec import ModelSpec

FRACTION = 0.8
"""NPU_MEMORY_FRACTION's default (verylucky01/MindIE-LLM@2ad5b22e service_parameter_configuration.md)."""
BLOCK = 128
PREFILL_TOKENS = 8192
RUNTIME = 3 * GIB
"""What gpustack 2.3's MindIE selector reserves for CANN, HCCL and the runtime; no log confirms it."""
ERROR = 0.15
ELEMENT = 2


class MindieAccountant:
    """npuMemSize = total x fraction - weights - runtime - working set."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide one card as MindIE does."""
        total, tensor = machine.card.memory, deployment.layout.tensor
        held_in = storage(model, deployment.quantization, deployment.dtype)
        weights = max(stage_bytes(model, Split(tensor, tensor, tensor), held_in)) + rope_bytes(model)
        usable = int(total * (deployment.utilization or FRACTION))
        prefill = deployment.max_batched_tokens or max(PREFILL_TOKENS, deployment.context)
        activation = forward_bytes(model, prefill, ELEMENT, tensor)
        pool = max(0, usable - weights - activation - RUNTIME)
        (caches,) = stage_caches(model, 1, tensor, element_bytes(deployment.kv_dtype, deployment.dtype))
        per_block = sequence_bytes(caches, BLOCK)
        tokens = pool // per_block * BLOCK if per_block else 0
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=activation, non_torch=RUNTIME, graphs=0,
            kv_cache=pool, kv_tokens=tokens, max_concurrency=tokens / deployment.context, error=ERROR,
        )  # fmt: skip
        return _judged(footprint, deployment)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest sequence that the pool holds."""
        return largest_context(self, model, machine, deployment)


def _judged(footprint: Footprint, deployment: Deployment) -> Footprint:
    needed = footprint.weights + footprint.activation + footprint.non_torch
    if needed > footprint.usable:
        words = f"{needed / GIB:.2f} GiB of weights, passes and runtime"
        return footprint.fails(
            "out_of_memory", f"{words} exceed {footprint.usable / GIB:.2f} GiB of the card"
        )
    if footprint.kv_tokens < deployment.context:
        words = f"the KV pool holds {footprint.kv_tokens:,} tokens"
        return footprint.fails("refused", f"{words}; a sequence of {deployment.context:,} is asked for")
    return footprint


accountant = MindieAccountant()
