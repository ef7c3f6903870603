"""How vLLM divides one card at start-up: utilization x total = weights + peak + non-torch (+ graphs) + KV."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from memserve.memory.account import Footprint
from memserve.memory.formats import DTYPE_BYTES
from memserve.memory.kv import element_bytes, layer_caches
from memserve.memory.weights import Split, absorbed_bytes, partition, rope_bytes, stage_bytes, storage
from memserve_vllm.memory_batch import batch
from memserve_vllm.memory_facts import GIB, fact
from memserve_vllm.memory_pages import DS_MLA_TOKEN, INDEX_TOKEN, PagePlan, Pool, pool
from memserve_vllm.memory_peak import graph_bytes, non_torch_bytes, peak

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine
    from memserve.memory.account import Deployment
    from memserve.memory.kv import LayerCache
    from memserve.model.spec import ModelSpec
    from memserve_vllm.memory_batch import Batch

ERROR = 0.02


class VllmAccountant:
    """vLLM's own start-up, as arithmetic."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card's memory as vLLM would."""
        deployment = settled(model, deployment)
        run = batch(model, machine, deployment)
        total = machine.card.memory
        usable = ceil(total * self.utilization(deployment))
        tightest = min(
            self._stages(model, machine, deployment, run), key=lambda stage: usable - sum(stage[:3])
        )
        weights, activation, non_torch = tightest
        graphs = graph_bytes(model, deployment, run)
        inside = graphs if fact("graph_estimate", deployment.engine_version)["value"] else 0
        available = deployment.kv_bytes or usable - weights - activation - non_torch - inside
        shape = self.pool(model, deployment)
        blocks = shape.blocks(available)
        need = shape.blocks_per_request(deployment.context, run.tokens)
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=activation, non_torch=non_torch,
            graphs=graphs, kv_cache=max(0, available),
            kv_tokens=shape.tokens(blocks, deployment.context, run.tokens),
            max_concurrency=blocks / need if need else float(deployment.concurrency), error=ERROR,
        )  # fmt: skip
        return judged(footprint, machine, deployment, available, shape, need)

    def _stages(self, model: ModelSpec, machine: Machine, deployment: Deployment,
                run: Batch) -> list[tuple[int, int, int]]:  # fmt: skip
        layout = deployment.layout
        split = Split(
            layout.tensor, layout.tensor, layout.tensor * layout.data, layout.expert,
        )  # fmt: skip
        held_in = storage(model, deployment.quantization, deployment.dtype)
        beside = rope_bytes(model, held_in.element) + absorbed_bytes(model, layout.tensor) // layout.pipeline
        spent = peak(model, deployment, run)
        non_torch = non_torch_bytes(machine, deployment)
        stages = stage_bytes(model, split, held_in, layout.pipeline)
        last = len(stages) - 1
        return [
            (size + beside, spent.last if index == last else spent.first, non_torch)
            for index, size in enumerate(stages)
        ]

    @staticmethod
    def utilization(deployment: Deployment) -> float:
        """The share of the card that vLLM may use."""
        if deployment.utilization is not None:
            return deployment.utilization
        return float(fact("utilization", deployment.engine_version)["value"])

    def pool(self, model: ModelSpec, deployment: Deployment) -> Pool:
        """The KV pool of the stage with the most layers."""
        plan = page_plan(deployment)
        caches = cached_layers(model, deployment)
        stages = deployment.layout.pipeline
        if stages > 1:
            caches = caches[: max(partition(len(caches), stages))]
        return pool(caches, plan)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that `deployment` could be started with on this machine; 0: none."""
        low, high = 0, model.max_context or deployment.context
        while low < high:
            middle = (low + high + 1) // 2
            found = self.account(model, machine, replace(deployment, context=middle))
            low, high = (middle, high) if found.outcome == "runs" else (low, middle - 1)
        return low


def settled(model: ModelSpec, deployment: Deployment) -> Deployment:
    """The deployment with `auto` made definite."""
    dtype = deployment.dtype
    if dtype in ("auto", ""):
        dtype = "bfloat16" if model.dtype == "bfloat16" else "float16"
    kv_dtype = deployment.kv_dtype or "auto"
    return replace(deployment, dtype=dtype, kv_dtype=kv_dtype)


def page_plan(deployment: Deployment) -> PagePlan:
    """The choices of this version that shape the pool."""
    row = {
        k: v
        for k, v in fact("pages", deployment.engine_version).items()
        if k not in ("since", "before", "source")
    }
    if deployment.option("disable-hybrid-kv-cache-manager") == "true":
        row["grouped"] = False
    width = int(deployment.option("decode-context-parallel-size") or 1)
    return PagePlan(block=deployment.block_size or 16, context_parallel=width, **row)


def cached_layers(model: ModelSpec, deployment: Deployment) -> tuple[LayerCache | None, ...]:
    """Every layer's cache on one rank, with vLLM's own layouts for sparse MLA."""
    element = element_bytes(deployment.kv_dtype, deployment.dtype)
    caches = layer_caches(model, deployment.layout.tensor, element)
    if not any(c is not None and c.index_bytes for c in caches):
        return caches
    latent = DS_MLA_TOKEN if deployment.kv_dtype in ("fp8_ds_mla", "fp8", "fp8_e4m3") else None
    return tuple(_sparse(cache, latent) for cache in caches)


def _sparse(cache: LayerCache | None, latent: int | None) -> LayerCache | None:
    if cache is None or not cache.index_bytes:
        return cache
    return replace(cache, token_bytes=latent or cache.token_bytes, index_bytes=INDEX_TOKEN)


def judged(footprint: Footprint, machine: Machine, deployment: Deployment, available: int, shape: Pool,
           need: int) -> Footprint:  # fmt: skip
    """The division with what memory says of it."""
    gib = f"{footprint.weights / GIB:.2f} GiB of weights"
    if footprint.weights > footprint.total:
        return footprint.fails("out_of_memory", f"{gib} exceed the card's {footprint.total / GIB:.2f} GiB")
    held = footprint.weights + footprint.activation + footprint.non_torch
    if held > footprint.total:
        return footprint.fails(
            "out_of_memory",
            f"{gib} and {footprint.activation / GIB:.2f} GiB of start-up peak exceed the card",
        )
    if not shape.groups:
        return (
            footprint if available >= 0 else footprint.fails("refused", "no memory is left after the weights")
        )
    blocks = shape.blocks(available)
    if blocks <= 0:
        return footprint.fails(
            "refused", f"{gib} and the start-up peak leave no memory for the KV cache within "
            f"{footprint.usable / GIB:.2f} GiB")  # fmt: skip
    if blocks < need:
        return footprint.fails(
            "refused", f"a request of {deployment.context:,} tokens needs {need * shape.block_bytes / GIB:.2f} GiB of "
            f"KV cache; {available / GIB:.2f} GiB are left")  # fmt: skip
    return footprint


accountant = VllmAccountant()
MEMORY = accountant
