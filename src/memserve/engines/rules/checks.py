"""Arithmetic that rules name: each check returns the words for its sentence if it refuses, else None."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from memserve.engines.rules.version import within

Check: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any] | None]

DEFAULT_GROUP = 128


def heads(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Attention heads must divide evenly over the tensor ranks."""
    return {} if known["heads"] and known["heads"] % known["tp"] else None


def kv_heads(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """KV heads are split evenly or replicated evenly."""
    if known["mla"]:
        return None
    tp = known["tp"]
    uneven = [count for count in known["kv_heads_all"] if count % tp and tp % count]
    return {"kv_heads": uneven[0]} if uneven else None


def cut_inputs(known: Mapping[str, Any]) -> tuple[int, ...]:
    """Input widths that tensor parallelism cuts: those of experts only where they do not stay whole."""
    rows: tuple[int, ...] = known["row_inputs"]
    return rows if known["expert_parallel"] else (*rows, *known["expert_inputs"])


def groups(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rank's share of every quantized input must be whole groups of scales."""
    group = known["group"] or DEFAULT_GROUP
    if group <= 0:
        return None
    uneven = [width for width in cut_inputs(known) if width % (known["tp"] * group)]
    return {"width": uneven[0], "group": group, "whole": f"{uneven[0] / group:g}"} if uneven else None


def blocks(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rank's share of every block-scaled matrix must be whole blocks."""
    block = known["block"]
    if not block:
        return None
    uneven = [width for width in cut_inputs(known) if width % (known["tp"] * block)]
    return {"width": uneven[0], "block": block, "share": f"{uneven[0] / known['tp']:g}"} if uneven else None


def layers(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Each pipeline stage needs a layer."""
    return {} if known["pp"] > known["layers"] else None


def world(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The layout cannot take more cards than there are."""
    return {} if known["world"] > known["cards"] else None


def attention_data(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Groups of replicated attention must divide the tensor ranks."""
    return {} if known["tp"] % known["attention_data"] else None


def context(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The context cannot exceed what the model was made for."""
    longest = known["max_context"]
    return {} if longest and known["context"] > longest else None


def architecture_missing(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """No release implements this architecture, nor can the engine borrow transformers' code for it."""
    row, table = known["architecture_row"], known["architecture_table"]
    if row is not None or not table:
        return None
    fallback = table.get("fallback_since")
    decoder = not (known["encoder_only"] or known["encoder_decoder"])
    return None if fallback and decoder and within(known["version"], fallback, None) else {}


def architecture_since(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The release is not newer than the last one that lacked this architecture."""
    row = known["architecture_row"]
    early = row is not None and row[0] and within(row[0], known["version"], None)
    return {"lacking": row[0], "since": row[1]} if early else None


def architecture_since_base(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same for a plug-in, whose post releases drive one release of the engine below."""
    return architecture_since({**known, "version": known["version"].partition(".post")[0]})


def architecture_removed(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """A later release than the last one that had this architecture."""
    row = known["architecture_row"]
    gone = row is not None and len(row) > 2 and not within(row[2], known["version"], None)
    return {"last": row[2]} if gone else None


CHECKS: dict[str, Check] = {
    "heads": heads, "kv_heads": kv_heads, "groups": groups, "blocks": blocks, "layers": layers,
    "world": world, "context": context, "attention_data": attention_data,
    "architecture_missing": architecture_missing, "architecture_since": architecture_since,
    "architecture_since_base": architecture_since_base, "architecture_removed": architecture_removed,
}  # fmt: skip
