"""How SGLang divides one card: a fraction of what is free before loading, less the weights, is KV.

Read in srt/model_executor/model_runner_kv_cache_mixin.py (0.5.7) and pool_configurator.py (0.5.12, 0.5.23):
KV = free after loading - free before loading x (1 - mem_fraction_static); activations and graphs live in
the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Assumption, Bars, Footprint
from memserve.engines.rules import within
from memserve.hardware.machine import GIB, Card, Machine
from memserve.memory import additions
from memserve.memory.formats import DTYPE_BYTES
from memserve.memory.kv import LayerCache, element_bytes, layer_caches
from memserve.memory.weights import Split, absorbed_bytes, rope_bytes, stage_bytes, storage
from memserve.model.spec import ModelSpec, remembered

STATE_BYTES = 4
"""SGLang keeps recurrent states in float32 unless the config says otherwise."""
INDEX_SCALE = 4
INDEX_BLOCK = 128
UNNAMED_REQUESTS = 512


@dataclass(frozen=True)
class Pools:
    """What a pool of some bytes holds."""

    tokens: int
    token_bytes: float
    """Bytes that one token of a long request takes, all pools together."""
    state_bytes: int
    """Taken by recurrent states."""


def pools(model: ModelSpec, machine: Machine, deployment: Deployment, available: int) -> Pools:
    """Split `available` bytes as SGLang does and count the tokens it prints."""
    caches = _caches(model, machine, deployment)
    ratio = float(deployment.option("swa-full-tokens-ratio") or table()["hybrid"]["swa_full_tokens_ratio"])
    if deployment.option("disable-hybrid-swa-memory"):
        ratio = 1.0
    cell = _cell(caches, ratio)
    states = _states(caches, deployment, available)
    page = deployment.block_size or fact("page", deployment.engine_version, machine.card)["value"]
    tokens = max(0, int((available - states) // cell)) // page * page if cell else 0
    asked = deployment.option("max-total-tokens")
    tokens = min(tokens, int(float(asked)) // page * page) if asked else tokens
    return Pools(tokens, cell, states)


def _caches(model: ModelSpec, machine: Machine, deployment: Deployment) -> list[LayerCache]:
    layout = deployment.layout
    element = element_bytes(deployment.kv_dtype, deployment.dtype)
    ranks = max(1, layout.tensor // layout.attention_data)
    index = 2.0 if machine.card.vendor == "ascend" else 1 + INDEX_SCALE / INDEX_BLOCK
    caches = layer_caches(model, ranks, element, index, STATE_BYTES)
    held = [cache for cache in caches if cache is not None and not model.encoder_only]
    return held[: -(-len(held) // layout.pipeline)] if layout.pipeline > 1 else held


def _cell(caches: list[LayerCache], ratio: float) -> float:
    """Bytes per token of the full pool; sliding layers keep `ratio` tokens for each of its tokens."""
    full = sum(c.token_bytes + c.index_bytes for c in caches if c.kind in ("full", "latent", "cross"))
    sliding = sum(c.token_bytes for c in caches if c.kind in ("window", "chunk"))
    return full + ratio * sliding if full else float(sliding)


def _states(caches: list[LayerCache], deployment: Deployment, available: int) -> int:
    """Recurrent states: a share of the pool, or one per request where no prefixes are kept."""
    per_request = sum(cache.state_bytes for cache in caches if cache.kind == "state")
    if not per_request:
        return 0
    named = deployment.option("max-mamba-cache-size")
    if named or deployment.option("disable-radix-cache"):
        requests = int(float(named or deployment.max_sequences or UNNAMED_REQUESTS))
        return per_request * -(-requests // deployment.layout.attention_data)
    ratio = float(
        deployment.option("mamba-full-memory-ratio") or table()["hybrid"]["mamba_full_memory_ratio"]
    )
    share = int(max(0, available) * ratio / (1 + ratio))
    return share // per_request * per_request


WIDE = 4
"""Tensor ranks from which more graphs are captured."""


def fraction(model: ModelSpec, machine: Machine, deployment: Deployment) -> float:
    """The share of free memory that weights and KV pools may take."""
    if deployment.utilization is not None:
        return deployment.utilization
    row = fact("fraction", deployment.engine_version, machine.card)
    ranks = deployment.layout.tensor
    if row["law"] == "tensor":
        listed = [int(key) for key in row["tensor"] if int(key) <= ranks]
        return _large(row, machine.card, float(row["tensor"][str(max(listed))]))
    memory = machine.card.driver_memory / MIB
    reserved = (
        _classes(row, machine.card, deployment)
        if row["law"] == "classes"
        else _sum(row, model, machine.card, deployment)
    )
    share = round((memory - reserved) / memory, 3)
    return share * float(table()["vision_factor"]["value"]) if model.towers else share


def _large(row: Mapping[str, Any], card: Card, share: float) -> float:
    """The share of a card that ranks alone do not decide."""
    large, wide, memory = row.get("large"), row.get("wide"), card.driver_memory / MIB
    if wide and memory > wide["above_mib"]:
        share = float(wide.get("share") or (memory - wide["reserved"]) / memory)
    if large is None or memory <= large["above_mib"]:
        return share
    if memory > large.get("top_mib", memory) and card.vendor == "nvidia":
        return float(large["top"])
    return min(share + 48 * 1024 * (1 - share) / memory, 1 - float(large["reserved"]) / memory)


PREFILL_SIZES = (
    *range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64),
    *range(1280, 4097, 256), *range(4608, 16385, 512),
)  # fmt: skip
"""Tokens of the prefill graphs, up to a chunk (0.5.23 arg_groups/cuda_graph_hook.py)."""


def _classes(row: Mapping[str, Any], card: Card, deployment: Deployment) -> float:
    ranks = deployment.layout.tensor * deployment.layout.pipeline
    memory = card.driver_memory / MIB
    base, per_rank = next((b, r) for limit, b, r in row["classes"] if limit is None or memory < limit)
    reserved = (base + per_rank * ranks) * 1024
    reserved += row["speculative"] if deployment.option("speculative-algorithm") else 0
    return float(reserved + (row["dp_attention"] if deployment.layout.attention_data > 1 else 0))


def chunk_of(card: Card, deployment: Deployment) -> int:
    """Tokens of a prefill."""
    return int(deployment.max_batched_tokens or fact("defaults", deployment.engine_version, card)["chunk"])


def graphs_of(card: Card, deployment: Deployment) -> int:
    """The largest batch that is captured."""
    usual = fact("defaults", deployment.engine_version, card)
    wide = deployment.layout.tensor >= WIDE
    return int(float(deployment.option("cuda-graph-max-bs") or usual["graphs_wide" if wide else "graphs"]))


def _sum(row: Mapping[str, Any], model: ModelSpec, card: Card, deployment: Deployment) -> float:
    chunk, graphs = chunk_of(card, deployment), graphs_of(card, deployment)
    reserved = row["base"] + max(chunk, 2048) * row["per_chunk"] + graphs * row["per_graph"]
    if not deployment.eager and deployment.option("disable-piecewise-cuda-graph") != "true":
        latent = any(block.mixer.kind == "mla" for block in model.blocks)
        sizes = sum(size <= chunk for size in PREFILL_SIZES)
        reserved += row["prefill_latent"] if latent else row["prefill_graph"] * sizes
    reserved += deployment.layout.tensor * deployment.layout.pipeline * row["per_rank"]
    groups = deployment.layout.attention_data
    if groups > 1:
        reserved += graphs * groups * (4.5 if graphs > 300 else 3)
    if card.driver_memory > 60 * 1024 * MIB:
        reserved = max(reserved, row["least_above_60g"])
    speculative = deployment.option("speculative-algorithm")
    return float(reserved + (row["speculative"] if speculative and speculative != "NGRAM" else 0))


MIB = 1024**2


@cache
def table() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = files.table(__file__, "memory.json")
    return found


def fact(name: str, version: str, card: Card) -> Mapping[str, Any]:
    """The first row of the table `name` that speaks of this version on this card."""
    for row in table()[name]:
        if not within(version, row.get("since"), row.get("before")):
            continue
        if row.get("vendor", card.vendor) != card.vendor or card.name not in row.get("cards", (card.name,)):
            continue
        if "below_mib" not in row or card.driver_memory < row["below_mib"] * MIB:
            found: Mapping[str, Any] = row
            return found
    raise LookupError(f"memory.json: no row of {name!r} covers SGLang {version} on {card.name}")


OWN_LAYERS = ("EAGLE", "NEXTN")
ADAPTERS, ADAPTER_RANK = 8, 16
"""Adapters of one batch by default (server_args.py max_loras_per_batch); a rank that nobody states."""
TABLE_BYTES = 4
"""Rotary tables are float32 on CUDA (srt/layers/rotary_embedding.py)."""


class SglangAccountant:
    """SGLang's own start-up, as arithmetic."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card's memory as SGLang would."""
        deployment = settled(model, deployment)
        model = _drafting(model, deployment)
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
            bars=_bars(machine.card, deployment, (usable, weights, available), held.token_bytes),
        )  # fmt: skip
        empty = available <= 0 or (held.token_bytes > 0 and held.tokens <= 0)
        return judged(footprint, total - outside, empty, share)

    def assumptions(self, model: ModelSpec, machine: Machine,
                    deployment: Deployment) -> tuple[Assumption, ...]:  # fmt: skip
        """What the release and the card decide."""
        card, version, option = machine.card, deployment.engine_version, deployment.option
        usual, share = fact("defaults", version, card), fact("fraction", version, card)
        page = deployment.block_size or fact("page", version, card)["value"]
        told = fraction(model, machine, settled(model, deployment))
        said = {
            "mem_fraction_static": (told, deployment.utilization, share),
            "chunked_prefill_size": (chunk_of(card, deployment), deployment.max_batched_tokens, usual),
            "cuda_graph_max_bs": (graphs_of(card, deployment), option("cuda-graph-max-bs"), usual),
            "page_size": (page, deployment.block_size, fact("page", version, card)),
        }  # fmt: skip
        return tuple(
            Assumption(name, value, f"--{name.replace('_', '-')} of the command" if given else row["source"])
            for name, (value, given, row) in said.items()
        )

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
        beside += adapters_bytes(model, deployment) // layout.pipeline
        return max(stage_bytes(model, split, held_in, layout.pipeline)) + beside + int(slack * GIB)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that `deployment` could be started with on this machine; 0: none."""
        longest = model.max_context or deployment.context
        found = self.account(model, machine, replace(deployment, context=longest))
        if found.outcome != "runs":
            return 0
        return min(longest, found.kv_tokens) if found.kv_cache else longest  # an encoder keeps no cache


def _bars(card: Card, deployment: Deployment, sizes: tuple[int, int, int], token_bytes: float) -> Bars:
    """How far real starts lie from the figures: what is usable, weights, and what they leave."""
    row, (usable, weights, left) = fact("error", deployment.engine_version, card), sizes
    below, above = (round(usable * share) for share in row["kv"])
    around = (round(weights * row["weights"][0]), round(weights * row["weights"][1]))
    return Bars(around, (below, max(0, left + above) - max(0, left)), token_bytes)


def _drafting(model: ModelSpec, deployment: Deployment) -> ModelSpec:
    """With the draft of --speculative-algorithm: the model that is named, else the model's own MTP layers."""
    algorithm = (deployment.option("speculative-algorithm") or "").upper()
    draft = additions.draft_of(deployment)
    if draft is not None:
        return remembered(model, ("draft", draft), lambda: additions.with_draft(model, draft))
    if algorithm in OWN_LAYERS and model.mtp_layers:
        return remembered(model, "drafting", lambda: additions.with_own_layers(model))
    return model


def adapters_bytes(model: ModelSpec, deployment: Deployment) -> int:
    """LoRA's buffers (srt/lora/mem_pool.py): for each adapter of a batch, both factors of every matrix."""
    option = deployment.option
    if option("enable-lora") != "true" and not option("lora-paths"):
        return 0
    many = int(option("max-loras-per-batch") or ADAPTERS) * int(option("max-lora-rank") or ADAPTER_RANK)
    widths = additions.adapted(model, deployment.layout.tensor)
    return round(many * widths * DTYPE_BYTES.get(deployment.dtype, 2))


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
