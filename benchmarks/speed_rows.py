"""The published measurements as calls of `memserve.speed.predict`: what was asked, what came out.

Rows are read from `truth/throughput.jsonl` in the folder that MEMSERVE_SHARED names (default: ../shared
beside the checkout).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.errors import MemserveError
from memserve.speed.roofline import layout, queueing, shape
from memserve.speed.roofline.forecast import situate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.speed.roofline.forecast import Situation

SHARED = Path(os.environ.get("MEMSERVE_SHARED", Path(__file__).parents[1].parent / "shared"))
MODELS = json.loads(Path(__file__).with_name("speed_models.json").read_text(encoding="utf-8"))
NAMES = {"AutoAWQ(transformers)": "autoawq", "AutoAWQ(IPEX CPU)": "ipex"}
VERSIONED = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM", "ascend": "MindIE"}


@dataclass(frozen=True)
class Row:
    """One measurement. `value` is in seconds, or tokens per second for throughput."""

    id: str
    group: str
    model: str
    gpus: str
    backend: str
    version: str | None
    quantization: str | None
    tensor: int | None
    input_tokens: float
    output_tokens: float
    concurrency: float | None
    figure: str
    """tpot, ttft, throughput, or total (prompt and answer over the whole time, batch 1)."""
    value: float
    alike: bool = False
    note: str = ""

    @property
    def load(self) -> queueing.Load:
        """What each request asks for."""
        return queueing.Load(self.input_tokens, self.output_tokens)

    @property
    def family(self) -> str:
        """The card without its count."""
        return self.gpus.split("x", 1)[1]


def rows() -> list[Row]:
    """Every row whose model has a configuration and whose figure `predict` gives."""
    path = SHARED / "truth" / "throughput.jsonl"
    found = (_row(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    return [row for row in found if row is not None and _timed(row) is not None]


def _row(raw: dict[str, Any]) -> Row | None:
    model = MODELS["models"].get(raw["model"]) or MODELS["alike"].get(raw["model"])
    figure = _figure(raw)
    if not model or not raw["n_cards"] or figure is None or not raw["value"]:
        return None
    backend = _backend(raw["engine"])
    quantization = raw["quantization"] or ("fp8" if raw["model"].endswith("FP8") else None)
    return Row(
        id=raw["id"],
        group=raw["source_group"].split("(")[0],
        model=model,
        gpus=f"{raw['n_cards']}x{raw['card']}",
        backend=backend,
        version=_version(raw["version"], backend),
        quantization=quantization,
        tensor=raw["tp"],
        input_tokens=raw["input_len"] or 0,
        output_tokens=raw["output_len"] or 512,
        concurrency=_number(raw["batch_or_concurrency_or_rate"]),
        figure=figure[0],
        value=figure[1],
        alike=raw["model"] in MODELS["alike"],
        note=raw["notes"] or "",
    )


def _figure(raw: dict[str, Any]) -> tuple[str, float] | None:
    value, metric = raw["value"], raw["metric"]
    if raw["source_group"].startswith("mlperf"):
        return None  # input and output lengths are those of data sets, not stated in the row
    if metric == "decode_speed":
        return "tpot", (_number(raw["batch_or_concurrency_or_rate"]) or 1) / value
    known = {
        "tpot_mean": ("tpot", value / 1e3),
        "ttft_mean": ("ttft", value / 1e3),
        "ttft": ("ttft", value / 1e3),
        "output_throughput_total": ("throughput", value),
        "output_throughput_per_gpu": ("throughput", value * (raw["n_cards"] or 0)),
        "total_throughput(prompt+gen)/time": ("total", value),
    }
    return known.get(metric)


def _number(word: object) -> float | None:
    try:
        return float(str(word))
    except ValueError:
        return None


def _backend(engine: str) -> str:
    if engine in NAMES:
        return NAMES[engine]
    if layout.kind(engine):
        return engine.lower()
    return "vllm" if "vllm" in engine.lower() else "trtllm" if engine.startswith("TensorRT") else engine


def _version(word: str | None, backend: str) -> str | None:
    if word and word.startswith("{"):
        return json.loads(word).get(VERSIONED.get(layout.kind(backend) or "", ""))
    return "0.2" if word == "2023-10" else word


@cache
def _shape(model: str) -> shape.Shape:
    from memserve.model import load

    return shape.of(load(SHARED / "facts" / "configs" / model.replace("/", "--") / "config.json"))


@cache
def _machine(gpus: str) -> Any:
    from memserve.hardware import parse

    return parse(gpus)


@cache
def _timed(row: Row) -> Situation | None:
    try:
        return situate(
            _shape(row.model), _machine(row.gpus), row.backend, row.load, row.concurrency,
            engine_version=row.version, quantization=row.quantization, tensor_parallel=row.tensor,
        )  # fmt: skip
    except MemserveError:
        return None


def situation(row: Row) -> Situation:
    """The row as the model sees it."""
    found = _timed(row)
    if found is None:
        raise ValueError(f"row {row.id} cannot be predicted")
    return found


def predicted(row: Row, seen: Situation) -> float:
    """The likely value of the row's figure."""
    timing = queueing.time(seen.setup, row.load, seen.limits, seen.each)
    if row.figure == "tpot":
        return timing.tpot
    if row.figure == "ttft":
        return timing.ttft
    if row.figure == "throughput":
        return timing.requests_per_s * row.output_tokens * seen.spread.replicas
    return (row.input_tokens + row.output_tokens) / (timing.ttft + row.output_tokens * timing.tpot)


def unfit(row: Row) -> str | None:
    """Why a row must not calibrate anything; None if it may."""
    if row.group == "gpustack-perflab":
        if row.tensor is None and not row.gpus.startswith("1x"):
            return "how many of the cards were used is only in the command"
        if "specul" in row.note:
            return "speculative decoding"
        if row.output_tokens < 8:
            return "four output tokens"
    if row.group == "qwen-speed-h20" and row.backend == "sglang":
        return "34 % of the bandwidth, slower than plain transformers (hardware.md section 2)"
    if row.group == "mlc-perf-bench" and row.backend == "vllm":
        return "vLLM of 2023-10 without CUDA graphs"
    if row.group == "inferencemax" and row.backend == "vllm" and row.version == "0.12.0":
        return "prompts read faster than the card's peak arithmetic: they came from a cache"
    if "openai/gpt-oss-120b" in row.model and row.concurrency == 512 and "H100" in row.gpus:
        return "tokens faster than the links allow: mislabelled"
    if row.backend == "sglang" and row.family == "GB200":
        return (
            "disaggregated: the same time per token from 128 to 4,096 requests, other cards read the prompts"
        )
    if row.note.startswith("DEP"):
        return "the layout is our reading of an abbreviation: it is tested, not learnt from"
    return _unstated(row)


def _unstated(row: Row) -> str | None:
    """What of a row's test it does not say, and other rows show."""
    if row.figure == "ttft" and row.backend == "sglang" and "measured=2025-11-10" in row.note:
        return "seconds from 32 requests on, which no other day shows: kernels were compiled during the test"
    if row.group == "vllm-ascend-docs" and row.concurrency in {None, 16}:
        return "at a rate that is not stated, or more than the twelve sequences that this test's server holds"
    return "a rank's share of the requests is that of tensor x expert ranks" if _regrouped(row) else None


def burst(row: Row) -> bool:
    """Sent all at once, not kept in flight: no steady load, and the last answers run alone."""
    return (situation(row).each or 0.0) > queueing.MANY


def speculated(row: Row) -> bool:
    """TensorRT-LLM's runs of DeepSeek-R1 on B200 of three days: 0.43 to 0.87 of the same configuration's time
    per token without speculative decoding, which other days' rows repeat to the digit as DeepSeek-V3's."""
    if not (row.backend == "trtllm" and row.model.endswith("DeepSeek-R1") and "xB200" in row.gpus):
        return False
    return any(f"measured={day}" in row.note for day in ("2026-01-14", "2026-02-05", "2026-02-06"))


def _regrouped(row: Row) -> bool:
    """Attention ranks counted as tensor x expert ranks of the same cards: requests are divided too often."""
    found = re.search(r"attention_dp=(\d+) moe_tp=(\d+)", row.note)
    if found is None or found.group(1) == "1":
        return False
    return not (row.gpus.startswith("1x") and found.group(2) == "1")


def within(rows_: list[Row], **wanted: object) -> Iterator[Row]:
    """Rows whose fields have these values."""
    return (row for row in rows_ if all(getattr(row, name) == value for name, value in wanted.items()))
