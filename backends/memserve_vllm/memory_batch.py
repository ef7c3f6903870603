"""The batch that vLLM profiles with: how many sequences and tokens, from flags or the card's defaults."""

from typing import NamedTuple

from memserve.engines.deployment import Deployment
from memserve.engines.rules.version import within
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve_vllm.memory_facts import Facts

V0_LEAST = 2048
V0_CHUNK = 512
CHUNKED_SINCE = "0.5.4"
V0_CHUNKED_FROM = 32768
POOLING_TOKENS = 32768


class Batch(NamedTuple):
    """What one profiling run holds."""

    sequences: int
    tokens: int
    v1: bool
    chunked: bool


def batch(facts: Facts, model: ModelSpec, machine: Machine, deployment: Deployment) -> Batch:
    """Sequences and tokens of the profiling run."""
    card, version = machine.card, deployment.engine_version
    v1 = bool(facts.row("engine", version, card)["value"])
    row = facts.row("batch", version, card)
    if not v1:
        return _v0(model, deployment, row["sequences"])
    tokens = deployment.max_batched_tokens or row["tokens"] or V0_LEAST
    sequences = deployment.max_sequences or row["sequences"]
    chunked = deployment.option("enable-chunked-prefill") != "false"
    if deployment.max_batched_tokens is None:
        if not chunked:
            tokens = max(tokens, deployment.context)
        tokens = min(tokens, sequences * deployment.context)
    if deployment.max_sequences is None:
        sequences = min(sequences, tokens)
    return Batch(sequences, tokens, True, chunked)


def _v0(model: ModelSpec, deployment: Deployment, usual: int) -> Batch:
    """V0 profiles a whole prompt, unless a context above 32k turned chunked prefill on."""
    asked = deployment.option("enable-chunked-prefill")
    long = deployment.context > V0_CHUNKED_FROM and not model.towers and not _sliding(model)
    long = long and within(deployment.engine_version, CHUNKED_SINCE, None)
    chunked = asked == "true" or (asked is None and long)
    tokens = deployment.max_batched_tokens
    if tokens is None:
        tokens = V0_CHUNK if chunked else max(deployment.context, V0_LEAST)
    return Batch(deployment.max_sequences or min(usual, tokens), tokens, False, chunked)


def _sliding(model: ModelSpec) -> bool:
    return any(block.mixer.kind == "sliding" for block in model.blocks)
