"""What vLLM's profiling run takes above the weights: sampler, forward pass, experts, vision, graphs."""

import json
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from memserve.engines.rules import within
from memserve.hardware.machine import GIB
from memserve.model.spec import ModelSpec, remembered
from memserve_vllm import memory_run
from memserve_vllm.memory_run import Run, by_ranks


@dataclass(frozen=True)
class Image:
    """The largest image of a family: what goes in and what comes out of the encoder."""

    patches: int
    tokens: int
    pixels: int
    """Numbers per patch."""
    outputs: int = 1
    """Widths of the language model that each token carries (deepstack: more than one)."""
    padded: int = 0
    """Tokens of the largest video, to which outputs were padded up to 0.16."""


OTHER = Image(4096, 1024, 588)
LARGE = Image(65536, 16384, 1176)
IMAGES = {
    "qwen2_vl": LARGE, "qwen2_5_vl": LARGE, "qwen3_5": Image(65536, 16384, 1536),
    "qwen3_5_moe": Image(65536, 16384, 1536), "qwen3_vl": Image(65536, 16384, 1536, 4, 153600),
    "qwen3_vl_moe": Image(65536, 16384, 1536, 4, 153600), "gemma3": Image(4096, 256, 588),
    "gemma4": Image(2520, 280, 768), "mistral3": Image(12100, 3025, 588), "pixtral": Image(4096, 4096, 768),
    "llava": Image(576, 576, 588), "llava_next": Image(2880, 2880, 588), "llama4": Image(9792, 2448, 588),
    "internvl": Image(13312, 3328, 588), "internvl_chat": Image(13312, 3328, 588),
}  # fmt: skip
"""By model_type: max_pixels of the processors' defaults over the patch size (vLLM 0.19.1 models/*.py)."""


def largest(model: ModelSpec) -> Image:
    """The image that the profile is made with."""
    return IMAGES.get(model.model_type, OTHER)


def limits(run: Run) -> dict[str, int]:
    """What a prompt may hold of each kind, as far as --limit-mm-per-prompt says: JSON, or image=2,video=0."""
    said = run.deployment.option("limit-mm-per-prompt") or ""
    try:
        found = json.loads(said)
    except ValueError:
        found = dict(word.split("=", 1) for word in said.split(",") if "=" in word)
    counts = found.items() if isinstance(found, dict) else ()
    each = {kind: count.get("count", 1) if isinstance(count, dict) else count for kind, count in counts}
    return {kind: int(count) for kind, count in each.items() if str(count).isdigit()}


def items(run: Run, image: Image) -> int:
    """Images in one profiling batch: what the encoder's budget and all prompts hold (encoder_budget.py)."""
    batch, fitting = run.batch, run.deployment.context // image.tokens
    a_prompt = max(1, min(limits(run).get("image", fitting), fitting))
    return max(1, min(max(batch.tokens, image.tokens) // image.tokens, a_prompt * batch.sequences))


def profiled(run: Run) -> bool:
    """Whether vLLM runs the encoders at start: not if no image may be sent, or if it is told not to."""
    deployment = run.deployment
    if not run.model.towers or deployment.option("skip-mm-profiling") == "true":
        return False
    since, before = run.row("vision").get("v2_without", (None, None))
    second = since and within(deployment.engine_version, since, before)
    if second and memory_run.runner(run).value == "V2":
        return False
    allowed = limits(run)
    return not allowed or any(allowed.values())


def vision_kept(run: Run, *, padded: bool) -> float:
    """Pixels and encoder outputs, which stay while the language model is profiled."""
    image, row = largest(run.model), run.row("vision")
    number = items(run, image)
    longest = image.padded if padded and row.get("padded") and limits(run).get("video", 1) else 0
    outputs = max(number * image.tokens, longest) * image.outputs * run.model.hidden
    return float(row["kept"] * (outputs + number * image.patches * image.pixels) * run.element)


def deepstack_bytes(run: Run) -> int:
    """Buffers for what the encoder adds to the first layers, made when the model is loaded: qwen3_vl.py."""
    levels = largest(run.model).outputs - 1 if run.model.towers else 0
    return levels * run.batch.tokens * run.model.hidden * run.element


def vision_bytes(run: Run) -> float:
    """The encoder's own peak."""
    image = largest(run.model)
    wide = tower_width(run.model) * run.row("vision")["widths"]
    return float(items(run, image) * image.patches * wide * run.element + vision_kept(run, padded=False))


def tower_width(model: ModelSpec) -> int:
    """The encoder's hidden width: what most of its matrices take in."""
    return remembered(model, "tower", lambda: _tower_width(model))


def _tower_width(model: ModelSpec) -> int:
    widths = Counter(weight.shape[-1] for weight in model.towers if len(weight.shape) == 2)
    return widths.most_common(1)[0][0] if widths else 0


FORWARD_COPIES = 3
"""Widths of the residual stream and of the FFN that are alive at once in a layer."""
GRAPH_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""Batch sizes captured by default (config/vllm.py)."""


class Peak(NamedTuple):
    """Bytes of the torch peak on one rank of the first and of the last stage."""

    first: int
    last: int


def peak(run: Run) -> Peak:
    """The torch peak above the weights while vLLM profiles its largest batch."""
    flow = run.batch.tokens * run.model.hidden * run.element
    experts, stay = experts_bytes(run), bool(run.row("experts")["value"])
    forward = forward_bytes(run) + (0.0 if stay else experts)
    hidden = run.row("hidden")
    base = hidden["base"] * GIB
    kept, vision = (experts if stay else 0.0) + workspace_bytes(run), 0.0
    if profiled(run):
        kept += vision_kept(run, padded=True)
        vision = vision_bytes(run)
    pipelined = run.deployment.layout.pipeline > 1
    first = max(forward + 2 * flow * pipelined, kept)
    last = max(sampler_bytes(run) + hidden["factor"] * flow + kept, forward)
    return Peak(round(max(first + base, vision)), round(max(last + base, vision)))


def sampler_bytes(run: Run) -> float:
    """The dummy sampler's rows: 16-bit logits, their float32 copies and what sorting them takes."""
    if memory_run.pools(run) or (not run.batch.v1 and run.batch.chunked):
        return 0.0
    row = run.row("sampler")
    second = "v2" in row and memory_run.runner(run).value == "V2"
    bytes_ = row["v2"] if second else row["bytes"][memory_run.sampler(run).value]
    per_entry = bytes_ + run.element if bytes_ else row["logits"]
    return float(run.batch.sequences * run.model.vocabulary * per_entry)


def workspace_bytes(run: Run) -> float:
    """What FP4 matrices and gated delta nets keep beside each other, and a token more of it."""
    row = run.row("workspace")
    if not memory_run.all_of(run, row["of"]):
        return 0.0
    return float(row["base"] * GIB + max(0, run.batch.tokens - row["from_tokens"]) * row["token_bytes"])


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
    if not width.experts or run.row("experts").get("naive"):
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
    said = run.deployment.option("max-cudagraph-capture-size") or ""
    most = int(said) if said.isdigit() else min(run.batch.sequences * 2, GRAPH_SIZES[-1])
    return bisect_right(GRAPH_SIZES, most)


def graph_bytes(run: Run) -> int:
    """What capturing CUDA graphs takes."""
    if run.deployment.eager:
        return 0
    row = run.row("graphs")
    layers = len(run.model.blocks) / run.deployment.layout.pipeline
    sizes = 1.0 if row.get("sizes") == "all" else graph_sizes(run) / len(GRAPH_SIZES)
    return int((row["base"] + row["per_layer"] * layers) * sizes * GIB)


def graph_profile_blocks(run: Run) -> int:
    """Blocks of the KV cache that the release makes to profile its CUDA graphs, before the real one."""
    row = run.row("graph_profile")
    if run.deployment.eager or not row["v2" if memory_run.runner(run).value == "V2" else "v1"]:
        return 0
    captured: int = GRAPH_SIZES[max(0, graph_sizes(run) - 1)]
    return min(run.batch.sequences, captured) if row["blocks"] == "sequences" else captured


def graphs_inside(run: Run, graphs: int) -> float:
    """What the budget keeps back for graphs: vLLM's own estimate, from the release that makes one."""
    inside = graphs and memory_run.graphs(run).value
    return float(graphs + run.row("graph_estimate")["base"] * GIB) if inside else 0.0
