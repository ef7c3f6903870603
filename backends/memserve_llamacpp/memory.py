"""llama.cpp: the GGUF file, one KV cache of the whole context, and a compute buffer."""

from functools import cache
from typing import Any

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Footprint
from memserve.hardware.machine import GIB, Machine
from memserve.memory.kv import largest_context, sequence_bytes, stage_caches
from memserve.memory.weights import Split, stage_bytes, storage, weight_bytes
from memserve.model.spec import ModelSpec

ERROR = 0.05
"""The mixtures (q4_k_m) differ by a few percent between models: an estimate."""


@cache
def facts() -> dict[str, Any]:
    """The rows of memory.json."""
    read: dict[str, Any] = files.table(__file__, "memory.json")
    return read


class LlamacppAccountant:
    """All layers offloaded, split over the cards; the token table stays with the host."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card."""
        on_cpu = machine.card.vendor == "cpu"
        weights, sequence, step = self._fullest(model, deployment, on_cpu)
        fixed = int(facts()["backend_gib"]["cpu" if on_cpu else "gpu"] * GIB)
        compute = self._compute(model, deployment)
        total = machine.card.memory
        usable = int(total * (deployment.utilization or 1.0))
        left = usable - weights - fixed - compute
        wanted = deployment.concurrency * sequence
        held = left / sequence if sequence else float(deployment.concurrency)
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=compute, non_torch=fixed, graphs=0,
            kv_cache=max(0, min(left, wanted)), kv_tokens=deployment.concurrency * step if sequence else 0,
            max_concurrency=max(0.0, held), error=ERROR,
        )  # fmt: skip
        return _judged(footprint, deployment, left, wanted)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that every wanted request can reach."""
        return largest_context(self, model, machine, deployment)

    def _fullest(self, model: ModelSpec, deployment: Deployment, on_cpu: bool) -> tuple[int, int, int]:
        """Weights and one sequence's cache of the fullest card, and the tokens that are set aside."""
        rows, stages = facts(), deployment.layout.pipeline
        held_in = storage(model, deployment.quantization, deployment.dtype)
        weights = list(stage_bytes(model, Split(), held_in, stages))
        if not on_cpu and not model.tied_embeddings:
            weights[0] -= round(sum(sum(weight_bytes(w, Split(), held_in)) for w in model.stem))
        element = rows["kv_bytes"].get(deployment.kv_dtype, 2)
        step = rows["context_step"]["value"]
        tokens = -(-deployment.context // step) * step
        caches = stage_caches(model, stages, 1, element)
        sequences = [0 if model.encoder_only else sequence_bytes(stage, tokens) for stage in caches]
        pairs = zip(weights, sequences, strict=True)
        most = max(pairs, key=lambda pair: pair[0] + deployment.concurrency * pair[1])
        return most[0], most[1], tokens

    def _compute(self, model: ModelSpec, deployment: Deployment) -> int:
        """The graph's buffer: logits or the widest layer of a micro-batch, and the attention mask."""
        rows = facts()
        batch: int = min(rows["micro_batch"]["value"], deployment.context)
        widest = max(model.vocabulary, 3 * model.intermediate + 2 * model.hidden)
        mask: int = rows["mask_bytes"]["value"] * deployment.context * deployment.concurrency * batch
        return 4 * batch * widest + mask


def _judged(footprint: Footprint, deployment: Deployment, left: int, wanted: int) -> Footprint:
    if left >= wanted:
        return footprint
    return footprint.fails(
        "out_of_memory",
        f"{footprint.weights / GIB:.2f} GiB of weights and a compute buffer of "
        f"{footprint.activation / GIB:.2f} GiB leave {max(0, left) / GIB:.2f} GiB; "
        f"{deployment.concurrency} x {deployment.context:,} tokens keep {wanted / GIB:.2f} GiB",
    )


accountant = LlamacppAccountant()
