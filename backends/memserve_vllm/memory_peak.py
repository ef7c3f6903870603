"""What vLLM's profiling run takes above the weights: sampler, forward pass, experts, vision, graphs."""

from bisect import bisect_right
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import GIB, Machine
from memserve.memory.formats import DTYPE_BYTES
from memserve.model.memo import remembered
from memserve.model.spec import ModelSpec
from memserve_vllm.memory_batch import Batch
from memserve_vllm.memory_facts import Facts, by_ranks

FORWARD_COPIES = 3
"""Widths of the residual stream and of the FFN that are alive at once in a layer."""
GRAPH_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""Batch sizes captured by default (config/vllm.py)."""


class Peak(NamedTuple):
    """Bytes of the torch peak on one rank of the first and of the last stage."""

    first: int
    last: int


class Run(NamedTuple):
    """One start to be accounted: what every estimate here is asked about."""

    facts: Facts
    model: ModelSpec
    machine: Machine
    deployment: Deployment
    batch: Batch

    def row(self, name: str) -> Mapping[str, Any]:
        """The row of a table for this version and card."""
        return self.facts.row(name, self.deployment.engine_version, self.machine.card)

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return DTYPE_BYTES.get(self.deployment.dtype, 2)


def peak(run: Run) -> Peak:
    """The torch peak above the weights while vLLM profiles its largest batch."""
    flow = run.batch.tokens * run.model.hidden * run.element
    experts, stay = experts_bytes(run), bool(run.row("experts")["value"])
    forward = forward_bytes(run) + (0.0 if stay else experts)
    hidden = run.row("hidden")
    base = hidden["base"] * GIB
    kept, vision = experts if stay else 0.0, 0.0
    if run.model.towers:
        from memserve_vllm.memory_vision import profiled, vision_bytes, vision_kept

        if profiled(run.model, run.deployment):
            kept += vision_kept(run.model, run.batch, run.element, run.row("vision"))
            vision = vision_bytes(run.model, run.batch, run.element, run.row("vision"))
    pipelined = run.deployment.layout.pipeline > 1
    first = max(forward + 2 * flow * pipelined, kept)
    last = max(sampler_bytes(run) + hidden["factor"] * flow + kept, forward)
    return Peak(round(max(first + base, vision)), round(max(last + base, vision)))


def sampler_bytes(run: Run) -> float:
    """The dummy sampler's rows: 16-bit logits, their float32 copies and what sorting them takes."""
    pooling = run.model.encoder_only or run.model.pooling or run.deployment.option("runner") == "pooling"
    if pooling or (not run.batch.v1 and run.batch.chunked):
        return 0.0
    row = run.row("sampler")
    per_entry = row["bytes"] + run.element if row["bytes"] else row["logits"]
    return float(run.batch.sequences * run.model.vocabulary * per_entry)


def forward_bytes(run: Run) -> float:
    """The widest moment of one layer over the whole batch."""
    width = run.model.hidden + widths(run.model).dense / run.deployment.layout.tensor
    naive = run.row("experts").get("naive", 0)
    forward = run.batch.tokens * run.element * FORWARD_COPIES * width
    return float(forward + naive * naive_experts_bytes(run))


class Widths(NamedTuple):
    """The inner widths of a model's FFNs."""

    dense: int
    """What every token passes: the dense FFN, or the shared experts."""
    expert: int
    experts: int
    chosen: int


def widths(model: ModelSpec) -> Widths:
    """Found once for a model."""
    return remembered(model, "widths", lambda: _widths(model))


def _widths(model: ModelSpec) -> Widths:
    routed = next((block for block in model.blocks if block.experts), None)
    if routed is None:
        return Widths(model.intermediate, 0, 0, 0)
    hidden = max(model.hidden, 1)
    parts = ("shared_expert", "mlp")
    blocks = {id(block): block for block in model.blocks}.values()
    dense = (
        prod(w.shape) // hidden for b in blocks for w in b.weights if w.part in parts and len(w.shape) == 2
    )
    inner = (prod(w.shape) // hidden for w in routed.weights if w.part == "expert" and len(w.shape) == 2)
    return Widths(max(dense, default=0), min(inner, default=0), routed.experts, routed.experts_per_token)


def experts_bytes(run: Run) -> float:
    """Fused-expert buffers: both inner products and the gathered outputs of the chosen experts."""
    width = widths(run.model)
    if not width.experts:
        return 0.0
    layout = run.deployment.layout
    inner = width.expert if layout.expert else -(-width.expert // (layout.tensor * layout.data))
    rows = run.batch.tokens * width.chosen
    return float(rows * run.element * (max(2 * inner, run.model.hidden) + inner))


def naive_experts_bytes(run: Run) -> float:
    """Before fused kernels every expert ran over every token, and all of them stayed alive."""
    width = widths(run.model)
    inner = width.expert / run.deployment.layout.tensor
    return run.batch.tokens * width.experts * (3 * inner + 5 * run.model.hidden) * run.element


def non_torch_bytes(run: Run) -> int:
    """Communication buffers and what libraries allocate past torch."""
    row = run.row("non_torch")
    layout = run.deployment.layout
    if layout.tensor == 1 and layout.pipeline > 1 and "pipeline" in row:
        return int(row["pipeline"] * GIB)
    return int(by_ranks(row["tensor"], layout.tensor) * GIB)


def graph_sizes(run: Run) -> int:
    """How many batch sizes are captured."""
    return bisect_right(GRAPH_SIZES, min(run.batch.sequences * 2, GRAPH_SIZES[-1]))


def graph_bytes(run: Run) -> int:
    """What capturing CUDA graphs takes."""
    if run.deployment.eager:
        return 0
    row = run.row("graphs")
    layers = len(run.model.blocks) / run.deployment.layout.pipeline
    return int((row["base"] + row["per_layer"] * layers) * graph_sizes(run) / len(GRAPH_SIZES) * GIB)


def graphs_inside(run: Run, graphs: int) -> float:
    """What the budget keeps back for graphs: vLLM's own estimate, from the release that makes one."""
    row = run.row("graph_estimate")
    return float(graphs * row["value"] + row["base"] * GIB) if graphs else 0.0
