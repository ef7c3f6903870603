"""SGLang's mem_fraction_static where the command names none: the share left after its own reserve."""

from collections.abc import Mapping
from typing import Any

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Card, Machine
from memserve.model.spec import ModelSpec
from memserve_sglang.memory_facts import MIB, fact, table

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
        return float(row["tensor"][str(max(listed))])
    memory = machine.card.driver_memory / MIB
    law = _classes if row["law"] == "classes" else _sum
    share = round((memory - law(row, machine.card, deployment)) / memory, 3)
    return share * float(table()["vision_factor"]["value"]) if model.towers else share


def _classes(row: Mapping[str, Any], card: Card, deployment: Deployment) -> float:
    ranks = deployment.layout.tensor * deployment.layout.pipeline
    memory = card.driver_memory / MIB
    base, per_rank = next((b, r) for limit, b, r in row["classes"] if limit is None or memory < limit)
    reserved = (base + per_rank * ranks) * 1024
    reserved += row["speculative"] if deployment.option("speculative-algorithm") else 0
    return float(reserved + (row["dp_attention"] if deployment.layout.attention_data > 1 else 0))


def _sum(row: Mapping[str, Any], card: Card, deployment: Deployment) -> float:
    usual = fact("defaults", deployment.engine_version, card)
    chunk = deployment.max_batched_tokens or usual["chunk"]
    wide = deployment.layout.tensor >= WIDE
    graphs = int(float(deployment.option("cuda-graph-max-bs") or usual["graphs_wide" if wide else "graphs"]))
    reserved = row["base"] + max(chunk, 2048) * row["per_chunk"] + graphs * row["per_graph"]
    reserved += deployment.layout.tensor * deployment.layout.pipeline * row["per_rank"]
    groups = deployment.layout.attention_data
    if groups > 1:
        reserved += graphs * groups * (4.5 if graphs > 300 else 3)
    if card.driver_memory > 60 * 1024 * MIB:
        reserved = max(reserved, row["least_above_60g"])
    speculative = deployment.option("speculative-algorithm")
    return float(reserved + (row["speculative"] if speculative and speculative != "NGRAM" else 0))
