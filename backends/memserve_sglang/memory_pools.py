"""SGLang's KV pools: tokens from bytes, split between full, sliding-window and recurrent layers."""

from dataclasses import dataclass

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Machine
from memserve.memory.kv import LayerCache, element_bytes, layer_caches
from memserve.model.spec import ModelSpec
from memserve_sglang.memory_facts import fact, table

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
