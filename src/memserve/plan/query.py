"""What a caller asks for, checked before anything is planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memserve.errors import InvalidInput, UnknownName
from memserve.plan.losses import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memserve.plan.job import Job

OBJECTIVES = ("quality", "throughput", "latency", "cost")
KV_DTYPES = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "int8", "int4")
QUANTIZATION_WORDS = {
    "bf16": "none", "fp16": "none", "bfloat16": "none", "float16": "none", "16bit": "none", "16-bit": "none",
    "bitsandbytes": "nf4", "bnb": "nf4", "bnb-4bit": "nf4", "bnb-8bit": "int8", "llm.int8": "int8",
    "gptq_marlin": "gptq", "awq_marlin": "awq", "gptq-int4": "gptq", "awq-int4": "awq", "modelslim": "w8a8",
    "gguf": "gguf-q4_k_m",
}  # fmt: skip
DEFAULT_CONTEXT = 8192
MOST = 10**9


@dataclass(frozen=True)
class Query:
    """None leaves the choice to the planner."""

    context: int | None = None
    concurrency: int = 1
    backend: str | None = None
    engine_version: str | None = None
    quantization: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    kv_dtype: str | None = None
    objective: str = "quality"
    job: Job | None = None
    """The workload that the plan is for: bounds the context, and is timed and priced."""

    def __post_init__(self) -> None:
        counts = {
            "context": self.context, "concurrency": self.concurrency, "tp": self.tensor_parallel,
            "pp": self.pipeline_parallel, "dp": self.data_parallel,
        }  # fmt: skip
        for name, count in counts.items():
            _positive(name, count)
        for name in ("backend", "engine_version", "quantization", "kv_dtype", "objective"):
            _word(name, getattr(self, name))
        if self.backend is not None:
            object.__setattr__(self, "backend", self.backend.strip().lower())
        if self.engine_version is not None and not 0 < len(self.engine_version.strip()) <= 80:
            raise InvalidInput("an engine version is a short word such as 0.19.1")
        _known("objective", self.objective, OBJECTIVES)
        if self.kv_dtype is not None:
            _known("KV dtype", self.kv_dtype, KV_DTYPES)
        if self.quantization is not None:
            object.__setattr__(self, "quantization", quantization_name(self.quantization))


def quantization_name(word: str) -> str:
    """memserve's name of a quantization, from the words that people use for it."""
    name = word.strip().lower()
    name = QUANTIZATION_WORDS.get(name, name)
    if name in WEIGHTS:
        return name
    if f"gguf-{name}" in WEIGHTS:
        return f"gguf-{name}"
    return _known("quantization", name, WEIGHTS)


def _positive(name: str, count: object) -> None:
    whole = isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MOST
    if count is not None and not whole:
        raise InvalidInput(f"{name} must be a whole number above 0, not {str(count)[:40]!r}")


def _word(name: str, word: object) -> None:
    if word is not None and not isinstance(word, str):
        raise InvalidInput(f"{name} must be a word, not {str(word)[:40]!r}")


def _known(what: str, word: str, words: Iterable[str]) -> str:
    known = tuple(words)
    if word in known:
        return word
    from difflib import get_close_matches

    near = tuple(get_close_matches(word, known, n=3))
    meant = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known[:12])}"
    raise UnknownName(f"unknown {what} {word[:40]!r}: {meant}", suggestions=near)
