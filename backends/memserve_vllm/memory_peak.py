"""What vLLM's profiling run takes above the weights: sampler, forward pass, experts, vision, graphs."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from memserve import files
from memserve.engines.rules import within
from memserve.hardware.machine import GIB
from memserve.memory.weights import storage
from memserve.model.spec import ModelSpec, remembered
from memserve_vllm import memory_run
from memserve_vllm.memory_allocator import reserved_bytes
from memserve_vllm.memory_run import Run, by_ranks


@dataclass(frozen=True)
class Image:
    """The largest image of a family: what goes in and what comes out of the encoder."""

    patches: int
    tokens: int
    pixels: int
    """Numbers per patch."""
    outputs: int = 1
    """Widths of the language model that each token carries: more than one with deepstack, 0 where a decoder
    looks back at them."""
    padded: int = 0
    """Tokens that a release up to 0.12 says its largest video has, 12.5 of them for each that is encoded."""
    turned: bool = False
    """Queries and keys are turned by their position, in copies of their own."""
    singly: bool = False
    """The encoder takes one after the other."""


OTHER = Image(4096, 1024, 588)
LARGE = Image(65536, 16384, 1176, turned=True)
LARGER = Image(65536, 16384, 1536, turned=True)
DEEP = Image(65536, 16384, 1536, 4, 153600, turned=True)
IMAGES = {
    "qwen2_vl": LARGE, "qwen2_5_vl": LARGE, "qwen3_5": LARGER, "qwen3_5_moe": LARGER, "qwen3_vl": DEEP,
    "qwen3_vl_moe": DEEP, "gemma3": Image(4096, 256, 588), "gemma4": Image(2520, 280, 768, singly=True),
    "mistral3": Image(12100, 3025, 588), "pixtral": Image(4096, 4096, 768),
    "whisper": Image(1500, 1500, 512, outputs=0), "mllama": Image(6432, 6404, 588, outputs=0),
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
        found = files.parsed(said)
    except ValueError:
        found = dict(word.split("=", 1) for word in said.split(",") if "=" in word)
    counts = found.items() if isinstance(found, dict) else ()
    each = {kind: count.get("count", 1) if isinstance(count, dict) else count for kind, count in counts}
    return {kind: int(count) for kind, count in each.items() if str(count).isdigit()}


def items(run: Run, image: Image) -> int:
    """Images in one profiling batch: what the encoder's budget and all prompts hold (encoder_budget.py); V0
    gave each sequence of a model with a decoder behind its encoder one (worker/enc_dec_model_runner.py)."""
    batch, fitting = run.batch, run.deployment.context // image.tokens
    if not batch.v1 and not image.outputs:
        return batch.sequences
    a_prompt = max(1, min(limits(run).get("image", fitting), fitting))
    return max(1, min(max(batch.tokens, image.tokens) // image.tokens, a_prompt * batch.sequences))


def profiled(run: Run) -> bool:
    """Whether vLLM runs the encoders at start: not if no image may be sent, or if it is told not to."""
    deployment = run.deployment
    if not (run.model.towers or run.model.encoder) or deployment.option("skip-mm-profiling") == "true":
        return False
    if not run.row("vision").get("profiled", True):
        return False
    since, before = run.row("vision").get("v2_without", (None, None))
    second = since and within(deployment.engine_version, since, before)
    if second and memory_run.runner(run).value == "V2":
        return False
    allowed = limits(run)
    return not allowed or any(allowed.values())


def vision_kept(run: Run, *, padded: bool) -> float:
    """Pixels and encoder outputs, which stay while the language model is profiled."""
    image, row = largest(run.model), run.row("vision").get("padded")
    number, longest = items(run, image), image.tokens
    if padded and row:
        longest = max(longest, image.padded if limits(run).get("video", 1) else 0)
        longest = max(longest, run.batch.tokens) if row == "budget" else longest
    outputs = number * longest * image.outputs * run.model.hidden
    return float((outputs + number * image.patches * image.pixels) * run.element)


def deepstack_bytes(run: Run) -> int:
    """Buffers for what the encoder adds to the first layers, made when the model is loaded: qwen3_vl.py."""
    levels = largest(run.model).outputs - 1 if run.model.towers else 0
    return levels * run.batch.tokens * run.model.hidden * run.element


STREAMS = 3
"""Whole widths alive in an encoder's layer: what came in, its sum with the attention's, and that normed."""


def vision_bytes(run: Run) -> float:
    """The encoder's own peak: in a layer, attention or the inner product, each rank with its share."""
    image, shape = largest(run.model), tower(run.model)
    whole = run.deployment.option("mm-encoder-tp-mode") == "data"
    ranks = 1 if whole else run.deployment.layout.tensor
    attention = run.row("vision")["attention"] * shape.width if image.turned else 4 * shape.width
    wide = STREAMS * shape.width + max(attention, shape.inner) / ranks
    at_once = 1 if image.singly else items(run, image)
    return float(at_once * image.patches * wide * run.element + vision_kept(run, padded=False))


class Tower(NamedTuple):
    """The encoder's widths."""

    width: int
    """What most of its matrices take in."""
    inner: int
    """The products in front of the activation and behind it, gate and up both."""


def tower(model: ModelSpec) -> Tower:
    """Found once for a model."""
    return remembered(model, "tower", lambda: _tower(model))


def _tower(model: ModelSpec) -> Tower:
    weights = model.towers or [weight for block in model.encoder for weight in block.weights]
    matrices = Counter(weight.shape for weight in weights if len(weight.shape) == 2)
    widths: Counter[int] = Counter()
    for shape, number in matrices.items():
        widths[shape[-1]] += number
    if not widths:
        return Tower(0, 0)
    width = widths.most_common(1)[0][0]
    down = {shape[1]: n for shape, n in matrices.items() if shape[0] == width and shape[1] > width}
    inner = max(down, default=width)
    gated = matrices[inner, width] >= 2 * down.get(inner, 1)
    return Tower(width, (3 if gated else 2) * inner)


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
    kept, vision = (experts if stay else 0.0), 0.0
    if profiled(run):
        kept += vision_kept(run, padded=True)
        vision = vision_bytes(run)
    pipelined = run.deployment.layout.pipeline > 1
    latent = latents(run)
    kept = max(kept, latent.gathered) - min(latent.reserved, max(kept, latent.gathered))
    forward = max(forward, kept + fp4(run).rows, kept + latent.moment)
    first = max(forward + 2 * flow * pipelined, kept)
    last = max(sampler_bytes(run) + hidden["factor"] * flow + kept, forward)
    return Peak(round(max(first + base, vision)), round(max(last + base, vision)))


class Latents(NamedTuple):
    """What latent attention (MLA) takes of the profile."""

    moment: float = 0.0
    """In a layer: its rows, and keys and values unpacked from a context, or the logits of a sparse index."""
    reserved: float = 0.0
    """When the model is loaded, in the workspace that the experts use, too: what a sparse prefill gathers."""
    gathered: float = 0.0
    """In that workspace, while it is profiled: the index keys of a prefill."""


UNPACKED = 64 * 1024
"""Tokens of context that are unpacked at once at most."""
LATENT_BYTES, INDEX_BYTES = 576 * 2, 132


def latents(run: Run) -> Latents:
    """layers/attention/mla_attention.py, backends/mla/flashmla_sparse.py, layers/sparse_attn_indexer.py."""
    mixer = next((block.mixer for block in run.model.blocks if block.mixer.kind == "mla"), None)
    row, batch, context = run.row("latents"), run.batch, run.deployment.context
    if mixer is None or not batch.v1:
        return Latents()
    heads = -(-mixer.heads // run.deployment.layout.tensor)
    rows = (
        2 * run.model.hidden
        + heads * (mixer.head_dim + mixer.value_dim)
        + mixer.kv_lora_rank
        + mixer.rope_dim
    )
    alive = batch.tokens * rows * run.element
    if mixer.index_dim:
        held = 5 * context * LATENT_BYTES * row["gathers"] * run.deployment.kv_dtype.startswith("fp8")
        joined = batch.tokens * heads * LATENT_BYTES * row["joins"]
        return Latents(alive + row["logits_mib"] * 2**20, held + joined, row["keys"] * context * INDEX_BYTES)
    block = int(memory_run.block(run).value)
    unpacked = min(max(8 * context, 4 * batch.sequences * block), UNPACKED)
    unpacked = max(unpacked, batch.sequences * block) * row["unpacks"]
    width = heads * (mixer.head_dim - mixer.rope_dim + mixer.value_dim)
    return Latents(alive + unpacked * width * run.element)


FEW_ROWS, FEW_BYTES = 128, 12
"""torch sorts fewer rows all together, by pairs of index and row that lie there twice, beside a copy of what
is sorted (aten/src/ATen/native/cuda/SortStable.cu segmented_sort_pairs_by_full_sort): 50 bytes, not 38."""


def sampler_bytes(run: Run) -> float:
    """The dummy sampler's rows: 16-bit logits, their float32 copies and what sorting them takes."""
    if memory_run.pools(run):
        return 0.0
    row = run.row("sampler")
    second, way = "v2" in row and memory_run.runner(run).value == "V2", memory_run.sampler(run).value
    bytes_ = row["v2"] if second else row["bytes"][way]
    if bytes_ and way == "pytorch" and run.batch.sequences < FEW_ROWS and run.machine.card.vendor != "cpu":
        bytes_ += FEW_BYTES
    per_entry = row.get("logits", bytes_ + run.element)
    return float(run.batch.sequences * run.model.vocabulary * per_entry)


class Fp4(NamedTuple):
    """What vLLM's own FP4 experts hold beside their buffers: fused_moe/experts/cutlass_moe.py."""

    rows: float
    """Rows on their way in, on their way out and weighed, beside what their graph's piece was given."""
    scales: float
    """Scales of as many tokens as VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE allows."""


FP4_TOKENS = 163840
MIXING = ("mixer", "attention")


def fp4(run: Run) -> Fp4:
    """Nothing where other kernels are taken."""
    held = storage(run.model, run.deployment.quantization, run.deployment.dtype).format
    if held is None or held.method != "nvfp4" or run.deployment.option("moe-backend") != "cutlass":
        return Fp4(0.0, 0.0)
    width, hidden = widths(run.model), run.model.hidden
    mixed = max(
        sum(prod(w.shape) // hidden for w in block.weights if w.part in MIXING and len(w.shape) == 2)
        for block in {id(block): block for block in run.model.blocks}.values()
    )
    given = 3 * width.chosen * hidden + 4 * hidden + mixed
    return Fp4(
        float(run.batch.tokens * given * run.element),
        FP4_TOKENS * width.chosen * (hidden + width.expert) / 16,
    )


def forward_bytes(run: Run) -> float:
    """The widest moment of one layer over the whole batch; or all that torch has reserved by then."""
    width = run.model.hidden + widths(run.model).dense / run.deployment.layout.tensor
    reserved, heads = run.row("hidden").get("reserved"), run.model.blocks[0].mixer.heads
    if reserved and heads and not widths(run.model).experts:
        return float(reserved_bytes(run))
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
    """Communication buffers and what libraries allocate past torch; experts are spread over data parallel
    ranks, too, which other layers do not speak over."""
    row = run.row("non_torch")
    layout = run.deployment.layout
    ranks = layout.tensor * (layout.data if widths(run.model).experts else 1)
    piped = ranks == 1 and layout.pipeline > 1 and "pipeline" in row
    libraries = row["pipeline"] if piped else by_ranks(row["tensor"], ranks)
    return int(libraries * GIB) + counts_bytes(run)


def counts_bytes(run: Run) -> int:
    """What the V2 runner counts the tokens of every sequence in, made before the weights."""
    if memory_run.pools(run) or memory_run.runner(run).value != "V2":
        return 0
    return int(run.row("counts")["v2"] * run.batch.sequences * run.model.vocabulary)


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
    if not graphs or not memory_run.graphs(run).value:
        return 0.0
    row, said = run.row("attention_workspace"), run.deployment.option("attention-backend") or ""
    latent = any(block.mixer.kind == "mla" for block in run.model.blocks)
    first = said.upper() == "FLASHINFER" if said else not latent and memory_run.any_of(run, row["of"])
    beside = run.row("graph_estimate")["base"] + row["gib"] * first
    return float(graphs + beside * GIB + 2 * fp4(run).scales)
