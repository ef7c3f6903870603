"""transformers in memserve's own loop: weights, one prefill pass, and a cache of batch x length."""

from functools import cache
from typing import Any

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Footprint
from memserve.hardware.machine import GIB, Machine
from memserve.memory.formats import DTYPE_BYTES
from memserve.memory.kv import forward_bytes, largest_context, largest_matrix, sequence_bytes, stage_caches
from memserve.memory.weights import Split, stage_bytes, storage
from memserve.model.spec import ModelSpec

ERROR = 0.08
"""No start-ups of this engine are in the validation set: an estimate."""
LOGITS = 2 + 4 + 4
"""Bytes of a logit: 16 bit, its float32 copy, and the sampler's sorted or scaled one."""
_BITSANDBYTES = frozenset({"nf4", "fp4", "int8"})


@cache
def facts() -> dict[str, Any]:
    """The rows of memory.json."""
    read: dict[str, Any] = files.table(__file__, "memory.json")
    return read


class HfAccountant:
    """No pool is reserved: the cache grows with the sequences in flight, layer by layer on its card."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card, when all requests have reached the context."""
        rows, method = facts(), deployment.quantization
        share = rows["usable_bnb" if method in _BITSANDBYTES else "usable"]["value"]
        usable = int(machine.card.memory * (deployment.utilization or share))
        activation, non_torch = self._pass(model, machine, deployment), _non_torch(machine)
        weights, sequence = self._fullest(model, deployment)
        left = usable - weights - activation - non_torch
        held = float(deployment.concurrency) if not sequence else left / sequence
        wanted = deployment.concurrency * sequence
        footprint = Footprint(
            total=machine.card.memory, usable=usable, weights=weights, activation=activation,
            non_torch=non_torch, graphs=0, kv_cache=max(0, min(left, wanted)), kv_tokens=0,
            max_concurrency=max(0.0, held), error=ERROR,
        )  # fmt: skip
        return _judged(footprint, deployment, left, wanted)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that the wanted requests can all reach."""
        return largest_context(self, model, machine, deployment)

    def _fullest(self, model: ModelSpec, deployment: Deployment) -> tuple[int, int]:
        """Weights and one sequence's cache of the card whose layers take most."""
        element, stages = DTYPE_BYTES.get(deployment.dtype, 2), deployment.layout.pipeline
        weights = stage_bytes(
            model, Split(), storage(model, deployment.quantization, deployment.dtype), stages
        )
        grain = facts()["grain"]["value"]
        tokens = -(-deployment.context // grain) * grain
        caches = () if model.encoder_only else stage_caches(model, stages, 1, element)
        sequences = [sequence_bytes(stage, tokens) for stage in caches] or [0] * stages
        pairs = zip(weights, sequences, strict=True)
        return max(pairs, key=lambda pair: pair[0] + deployment.concurrency * pair[1])

    def _pass(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """A prefill pass at its widest: hidden states, mask, logits, and what is unpacked on the way."""
        rows, element = facts(), DTYPE_BYTES.get(deployment.dtype, 2)
        width = rows["prefill_tokens"]["cpu" if machine.card.vendor == "cpu" else "other"]
        tokens: int = deployment.max_batched_tokens or min(width, deployment.context * deployment.concurrency)
        mask: int = min(rows["mask_bytes"]["value"], element * tokens * deployment.context)
        logits = 0 if model.encoder_only else LOGITS * deployment.concurrency * model.vocabulary
        method = model.quantization.method if model.quantization else deployment.quantization
        unpacked = largest_matrix(model) * element if method in rows["unpacked"]["methods"] else 0
        return forward_bytes(model, tokens, element) + mask + logits + unpacked


def _non_torch(machine: Machine) -> int:
    row = facts()["non_torch_gib"]
    kind = {"nvidia": "cuda", "cpu": "cpu"}.get(machine.card.vendor, "other")
    return int(row[kind] * GIB)


def _judged(footprint: Footprint, deployment: Deployment, left: int, wanted: int) -> Footprint:
    gib = f"{footprint.weights / GIB:.2f} GiB of weights"
    if footprint.weights > footprint.usable:
        room = footprint.usable / GIB
        return footprint.fails("out_of_memory", f"{gib} exceed the {room:.2f} GiB that a card can give")
    if left < wanted:
        return footprint.fails(
            "out_of_memory",
            f"{gib} and {footprint.activation / GIB:.2f} GiB for a prefill pass "
            f"leave {max(0, left) / GIB:.2f} GiB; "
            f"{deployment.concurrency} x {deployment.context:,} tokens keep {wanted / GIB:.2f} GiB",
        )
    return footprint


accountant = HfAccountant()
