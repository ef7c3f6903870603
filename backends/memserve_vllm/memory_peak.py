"""What vLLM's profiling run takes above the weights: sampler, forward pass, experts, vision, graphs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from memserve.memory.formats import DTYPE_BYTES
from memserve_vllm.memory_facts import GIB, by_ranks

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine
    from memserve.memory.account import Deployment
    from memserve.model.spec import Block, ModelSpec
    from memserve_vllm.memory_batch import Batch
    from memserve_vllm.memory_facts import Facts

FORWARD_COPIES = 3
"""Widths of the residual stream and of the FFN that are alive at once in a layer."""
LARGEST_GRAPH = 512
ALL_GRAPHS = 51
"""Sizes captured up to 512 tokens: 1, 2, 4, then every 8 to 256 and every 16 beyond."""


@dataclass(frozen=True)
class Peak:
    """Bytes of the torch peak on one rank of the first and of the last stage."""

    first: int
    last: int


@dataclass(frozen=True)
class Run:
    """One start to be accounted: what every estimate here is asked about."""

    facts: Facts
    model: ModelSpec
    machine: Machine
    deployment: Deployment
    batch: Batch

    def row(self, name: str) -> dict[str, float]:
        """The row of a table for this version and card."""
        return dict(self.facts.row(name, self.deployment.engine_version, self.machine.card))

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return DTYPE_BYTES.get(self.deployment.dtype, 2)


def peak(run: Run) -> Peak:
    """The torch peak above the weights while vLLM profiles its largest batch."""
    flow = run.batch.tokens * run.model.hidden * run.element
    forward = forward_bytes(run)
    hidden = run.row("hidden")
    base = hidden["base"] * GIB
    kept = experts_bytes(run) + vision_kept(run)
    pipelined = run.deployment.layout.pipeline > 1
    first = max(forward + 2 * flow * pipelined, kept)
    last = max(sampler_bytes(run) + hidden["factor"] * flow + kept, forward)
    vision = vision_bytes(run)
    return Peak(round(max(first + base, vision)), round(max(last + base, vision)))


def sampler_bytes(run: Run) -> float:
    """The dummy sampler's rows: 16-bit logits, their float32 copies and what sorting them takes."""
    if not run.batch.v1 and run.batch.chunked:
        return 0.0
    row = run.row("sampler")
    per_entry = row["bytes"] + run.element if row["bytes"] else row["logits"]
    return float(run.batch.sequences * run.model.vocabulary * per_entry)


def forward_bytes(run: Run) -> float:
    """The widest moment of one layer over the whole batch."""
    width = run.model.hidden + dense_width(run.model) / run.deployment.layout.tensor
    naive = run.row("experts").get("naive", 0)
    forward = run.batch.tokens * run.element * FORWARD_COPIES * width
    return forward + naive * naive_experts_bytes(run)


def dense_width(model: ModelSpec) -> int:
    """The FFN that every token passes: the dense one, or the shared experts'."""
    if not any(block.experts for block in model.blocks):
        return model.intermediate
    parts = ("shared_expert", "mlp")
    found = (w.shape for b in model.blocks for w in b.weights if w.part in parts and len(w.shape) == 2)
    return max((prod(shape) // max(model.hidden, 1) for shape in found), default=0)


def routed_block(model: ModelSpec) -> Block | None:
    """A layer with routed experts."""
    return next((block for block in model.blocks if block.experts), None)


def expert_width(block: Block, hidden: int) -> int:
    """The inner width of one expert."""
    sizes = [prod(w.shape) for w in block.weights if w.part == "expert" and len(w.shape) > 1]
    return min(sizes, default=0) // max(hidden, 1)


def experts_bytes(run: Run) -> float:
    """Fused-expert buffers that stay: both inner products and the gathered outputs of the chosen experts."""
    block = routed_block(run.model)
    if block is None or not run.row("experts")["value"]:
        return 0.0
    layout = run.deployment.layout
    inner = expert_width(block, run.model.hidden)
    inner = inner if layout.expert else -(-inner // (layout.tensor * layout.data))
    rows = run.batch.tokens * block.experts_per_token
    return float(rows * run.element * (max(2 * inner, run.model.hidden) + inner))


def naive_experts_bytes(run: Run) -> float:
    """Before fused kernels every expert ran over every token, and all of them stayed alive."""
    block = routed_block(run.model)
    if block is None:
        return 0.0
    inner = expert_width(block, run.model.hidden) / run.deployment.layout.tensor
    return run.batch.tokens * block.experts * (3 * inner + 5 * run.model.hidden) * run.element


def vision_kept(run: Run) -> float:
    """Encoder outputs that wait in the encoder cache while the language model is profiled."""
    if not run.model.towers:
        return 0.0
    return float(run.batch.tokens * run.model.hidden * run.element * run.row("vision")["kept"])


def vision_bytes(run: Run) -> float:
    """Running the largest image through the encoder."""
    return 0.0


def non_torch_bytes(run: Run) -> int:
    """Communication buffers and what libraries allocate past torch."""
    row = run.facts.row("non_torch", run.deployment.engine_version, run.machine.card)
    layout = run.deployment.layout
    if layout.tensor == 1 and layout.pipeline > 1 and "pipeline" in row:
        return round(row["pipeline"] * GIB)
    return round(by_ranks(row["tensor"], layout.tensor) * GIB)


def graph_sizes(run: Run) -> int:
    """How many batch sizes are captured."""
    largest = min(run.batch.sequences * 2, LARGEST_GRAPH)
    return sum(
        1 for size in (1, 2, 4, *range(8, 256, 8), *range(256, LARGEST_GRAPH + 1, 16)) if size <= largest
    )


def graph_bytes(run: Run) -> int:
    """What capturing CUDA graphs takes."""
    if run.deployment.eager:
        return 0
    row = run.row("graphs")
    layers = len(run.model.blocks) / run.deployment.layout.pipeline
    return round((row["base"] + row["per_layer"] * layers * graph_sizes(run) / ALL_GRAPHS) * GIB)
