"""The cos/sin tables that engines build for rotary positions, in rows of the widest table.

The rules are vLLM 0.32's (model_executor/layers/rotary_embedding); its "weights" figure includes the tables.
"""

from collections.abc import Mapping
from typing import Any

from memserve.model.config import Config

# Share of a head's channels that is rotated, where a config leaves it to its class.
SHARES = {
    "phi": 0.5, "glm": 0.5, "glm4": 0.5, "glm4_moe": 0.5, "glm4v_text": 0.5, "glm4v_moe_text": 0.5,
    "qwen3_next": 0.25, "qwen3_5_text": 0.25, "qwen3_5_moe_text": 0.25, "stablelm": 0.25, "gpt_neox": 0.25,
    "nemotron": 0.5, "persimmon": 0.5,
}  # fmt: skip
# Families with a second, unscaled table for their sliding layers.
TWO_TABLES = frozenset({"gemma3_text", "gemma3n_text"})
VIDEO_STRETCH = 4
MOST = 1 << 34


def _positive(value: object) -> float | None:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and 0 < value <= MOST else None  # type: ignore[operator, arg-type]


def share(config: Config, table: Mapping[str, Any], width: int) -> int:
    """Channels of a head that are rotated."""
    for written in (config.given.get("rotary_dim"), table.get("rotary_dim")):
        found = _positive(written)
        if found and found <= width:
            return int(found)
    for name in ("partial_rotary_factor", "rotary_pct"):
        part = _positive(table.get(name, config.given.get(name)))
        if part and part <= 1:
            return int(width * part)
    return int(width * SHARES.get(config.kind, 1.0))


def _rows(table: Mapping[str, Any], context: int) -> float:
    """Rows of one table."""
    kind = table.get("rope_type", table.get("type"))
    factor = _positive(table.get("factor")) or 1.0
    original = _positive(table.get("original_max_position_embeddings"))
    if isinstance(table.get("mrope_section"), list):
        return context * VIDEO_STRETCH
    if kind in ("linear", "dynamic"):
        return context * factor
    if kind in ("yarn", "deepseek_yarn"):
        return (original or context) * factor
    if kind in ("longrope", "su"):
        return context + (original or 0)
    return context


def tables(config: Config, width: int, context: int | None) -> tuple[int, int]:
    """The widest rotation, and how many rows of that width all tables have together."""
    if not context or not width:
        return 0, 0
    written = config.table("rope_parameters") or config.table("rope_scaling")
    nested = [(name, value) for name, value in written.items() if isinstance(value, dict)]
    parts = nested or [("", written)]
    if config.kind in TWO_TABLES and not nested:
        parts.append(("sliding_attention", {}))
    original = config.given.get("original_max_position_embeddings")
    sizes = []
    for kind, part in parts:
        if original is not None:
            part = {"original_max_position_embeddings": original, **part}
        wide = config.maybe("global_head_dim") if kind == "full_attention" else None
        sizes.append((share(config, part, wide or width), min(_rows(part, context), MOST)))
    widest = max(size for size, _ in sizes)
    if not widest:
        return 0, 0
    return widest, round(sum(size * rows for size, rows in sizes) / widest)
