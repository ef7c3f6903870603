"""What stands beside a model on every rank: a draft with its layers and their cache, and LoRA's buffers."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.errors import MemserveError
from memserve.model import load
from memserve.model.spec import Block, ModelSpec, Weight

SHARING = ("eagle", "mtp", "dflash", "nextn")
"""Methods whose drafts read the target's embedding and, but for EAGLE-3, write with its head: vLLM 0.33.0
model_executor/models/llama_eagle.py, llama_eagle3.py."""
ADAPTED = ("attention", "mlp", "shared_expert", "mixer", "expert")
OWN_HEAD = "eagle3"
OWN_VOCABULARY = 32000
"""Rows of an EAGLE-3 head: what published drafts have as draft_vocab_size."""


class Draft(NamedTuple):
    """The model that a command names, and how it foretells."""

    name: str
    method: str


def draft_of(deployment: Deployment) -> Draft | None:
    """The draft model of a command: in a JSON configuration, or in flags of its own."""
    option = deployment.option
    try:
        config = files.parsed(option("speculative-config") or "{}")
    except ValueError:
        return None
    config = config if isinstance(config, dict) else {}
    name = config.get("model") or option("speculative-model") or option("speculative-draft-model-path")
    method = config.get("method") or option("speculative-algorithm") or ""
    return Draft(str(name), str(method).lower()) if name and not str(name).startswith("[") else None


def with_draft(target: ModelSpec, draft: Draft) -> ModelSpec:
    """The target with what the draft adds to every rank; the target alone where the draft cannot be read."""
    try:
        model = load(draft.name)
    except MemserveError:
        return target
    blocks = tuple(map(_joined, model.blocks)) if OWN_HEAD in draft.method else model.blocks
    return replace(
        target, blocks=(*target.blocks, *blocks), top=(*target.top, *_matrices(model, draft.method))
    )


def _joined(block: Block) -> Block:
    """A layer of EAGLE-3, whose queries, keys and values are made of the embedding and the hidden state."""
    weights = (
        replace(weight, shape=(*weight.shape[:-1], 2 * weight.shape[-1]))
        if weight.part == "attention" and weight.linear and weight.shard in ("column", "kv")
        else weight
        for weight in block.weights
    )
    return replace(block, weights=tuple(weights))


def with_own_layers(model: ModelSpec) -> ModelSpec:
    """With its own layers that foretell tokens (MTP): of the last kind that keeps a cache for each token."""
    kinds = [block for block in model.blocks if block.mixer.kind in ("full", "mla")]
    return replace(model, blocks=(*model.blocks, *kinds[-1:] * model.mtp_layers))


def adapted(model: ModelSpec, ranks: int, *, sharded: bool = False) -> float:
    """Rows of both factors of every adapted matrix on one rank, for each rank of an adapter."""
    return sum(
        _width(weight, ranks, ranks if sharded else 1)
        for block in model.blocks
        for weight in block.weights
        if weight.linear and weight.part in ADAPTED
    )


def _width(weight: Weight, ranks: int, whole: int) -> float:
    out, taken = weight.shape[-2:]
    if weight.shard == "row":
        return weight.count * (taken / ranks + out / whole)
    return weight.count * (taken / whole + out / ranks)


def _matrices(model: ModelSpec, method: str) -> tuple[Weight, ...]:
    """What of the draft stands before and after its layers."""
    own = [weight for weight in (*model.stem, *model.top) if not weight.tied]
    if not any(name in method for name in SHARING):
        return tuple(own)
    kept = [weight for weight in own if weight.part not in ("embedding", "head")]
    if not method.startswith("eagle"):
        return tuple(kept)
    third = OWN_HEAD in method
    joins = Weight("fc", "other", (model.hidden, (3 if third else 2) * model.hidden), linear=True)
    head = Weight("lm_head", "head", (OWN_VOCABULARY, model.hidden), "vocab")
    return (*kept, joins, head) if third else (*kept, joins)
