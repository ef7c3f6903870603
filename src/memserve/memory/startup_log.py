"""Reads what vLLM, vLLM-Ascend and SGLang say about memory when they start."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from memserve.errors import InvalidInput

Engine: TypeAlias = Literal["vllm", "vllm-ascend", "sglang"]
GIB = 1024**3
MOST_BYTES = 2 * 1024**2
"""A start tells all of this within its first few thousand lines."""
BLOCK_SIZE = {"vllm": 16, "vllm-ascend": 128, "sglang": 1}
"""Tokens of a block where the log does not say."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RANK = re.compile(r"\b(?:TP|rank=|Worker_TP|DP)([0-9]+)")
_FIGURES = (
    "weights",
    "activation",
    "non_torch",
    "graphs",
    "kv_bytes",
    "kv_tokens",
    "blocks",
    "consumed",
    "requested",
)
_EXPECTED = "it should say 'Available KV cache memory: 39.28 GiB' or 'Load weight end. ... mem usage=5.88 GB'"


@dataclass(frozen=True)
class StartupLog:
    """One start as its log tells it. Bytes per card, the fullest rank; None: the log does not say."""

    engine: Engine
    version: str | None = None
    model: str | None = None
    device: str | None = None
    """The card's name, where a tuning file's name gives it away."""
    tensor: int | None = None
    pipeline: int | None = None
    context: int | None = None
    utilization: float | None = None
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    total: int | None = None
    free_at_start: int | None = None
    requested: int | None = None
    weights: int | None = None
    activation: int | None = None
    non_torch: int | None = None
    graphs: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None


@cache
def _lines() -> tuple[tuple[dict[str, Any], re.Pattern[str]], ...]:
    text = files("memserve.memory").joinpath("data/startup_log.json").read_text(encoding="utf-8")
    return tuple((row, re.compile(row["pattern"])) for row in json.loads(text)["lines"])


def read(path: str | Path) -> StartupLog:
    """The log at the beginning of a file."""
    file = Path(path)
    try:
        if not file.is_file() and file.stat():
            raise InvalidInput(f"cannot read the log {str(file)!r}: not a file")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES)
    except OSError as error:
        raise InvalidInput(f"cannot read the log {str(file)!r}: {error.strerror}") from None
    return parse(content.decode("utf-8", errors="replace"), name=file.name)


def parse(text: str, *, name: str = "the log") -> StartupLog:
    """The figures of one start; `InvalidInput` where there are none."""
    clean = _COLOUR.sub("", text).splitlines()
    engine = _engine(text)
    figures = _gather(clean, "sglang" if engine == "sglang" else "vllm")
    if not any(field in figures for field in _FIGURES):
        raise InvalidInput(f"{name} has no memory figures of vLLM, vLLM-Ascend or SGLang", hint=_EXPECTED)
    return _log(engine, figures)


def _engine(text: str) -> Engine:
    if re.search(
        r"Load weight (begin|end)\.|KV Cache is allocated|max_total_num_tokens|mem_fraction_static", text
    ):
        return "sglang"
    return (
        "vllm-ascend" if re.search(r"NPU graph memory|vllm_ascend|vllm-ascend|NPU blocks", text) else "vllm"
    )


def _gather(lines: list[str], engine: str) -> dict[str, Any]:
    """Field -> figure, from every row of the table that matches some line. Rows go before later ones."""
    found: dict[str, Any] = {}
    for row, pattern in _lines():
        if row["engine"] != engine or row["field"] in found:
            continue
        hits = [(_rank(line), match[1]) for line in lines for match in pattern.finditer(line)]
        values = [(rank, value) for rank, word in hits if (value := _value(word, row["unit"])) is not None]
        if values:
            found[row["field"]] = _picked(values, row["pick"])
    return found


def _rank(line: str) -> str:
    match = _RANK.search(line)
    return match[0] if match else ""


def _value(word: str, unit: str) -> Any:
    if unit == "text":
        return word
    try:
        number = float(word.replace(",", "").rstrip("."))
    except ValueError:
        return None
    if unit == "gib":
        return round(number * GIB)
    if unit == "count":
        return int(number) if number >= 0 else None
    return number


def _picked(values: list[tuple[str, Any]], pick: str) -> Any:
    plain = [value for _, value in values]
    if pick == "sum_of_rank":
        sums: dict[str, int] = {}
        for rank, value in values:
            sums[rank] = sums.get(rank, 0) + value
        return min(sums.values())
    if pick in ("min", "max"):
        return min(plain) if pick == "min" else max(plain)
    return plain[0] if pick == "first" else plain[-1]


def _log(engine: Engine, figures: dict[str, Any]) -> StartupLog:
    _derive(engine, figures)
    fields = {field: figures.get(field) for field in StartupLog.__dataclass_fields__ if field != "engine"}
    return StartupLog(engine, **fields)


def _derive(engine: Engine, figures: dict[str, Any]) -> None:
    """What the formats say only as a sum or a difference."""
    weights, peak = figures.get("weights"), figures.get("peak_torch")
    if weights is None and "initial" in figures:  # vLLM 0.6.4
        weights = figures["weights"] = figures["initial"] - figures.get("non_torch", 0)
    if "consumed" in figures and weights is not None:  # vLLM 0.26: weights + non-torch
        figures.setdefault("non_torch", max(0, figures["consumed"] - weights))
    if peak is not None and weights is not None:
        figures.setdefault("activation", max(0, peak - weights))
    if "kv_k" in figures:
        figures.setdefault("kv_bytes", figures["kv_k"] + figures.get("kv_v", 0))
    figures.setdefault("kv_tokens", figures.get("pool_tokens"))
    if figures["kv_tokens"] is None and "blocks" in figures:
        figures["kv_tokens"] = figures["blocks"] * figures.get("block_size", BLOCK_SIZE[engine])
