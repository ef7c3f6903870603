"""What a caller asks of the planner, from keywords or from the command line, checked before any work."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from memserve.engines import installed
from memserve.errors import InvalidInput, UnknownName
from memserve.plan.candidate import WEIGHTS

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from memserve.model.spec import ModelSpec
    from memserve.plan.job import Job
    from memserve.speed.workloads import Workload

OBJECTIVES = ("quality", "throughput", "latency", "cost")
KV_DTYPES = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "int8", "int4")
QUANTIZATION_WORDS = {
    "bf16": "none", "fp16": "none", "bfloat16": "none", "float16": "none", "16bit": "none", "16-bit": "none",
    "bitsandbytes": "nf4", "bnb": "nf4", "bnb-4bit": "nf4", "bnb-8bit": "int8", "llm.int8": "int8",
    "gptq_marlin": "gptq", "awq_marlin": "awq", "gptq-int4": "gptq", "awq-int4": "awq", "modelslim": "w8a8",
    "gguf": "gguf-q4_k_m",
}  # fmt: skip
BITS = {"exl2": "4bit", "exl3": "4bit", "hqq": "4bit", "mlx": "4bit"}
"""Formats that no backend reads, by the bits that they usually have."""
SHORT = {"tp": "tensor_parallel", "pp": "pipeline_parallel", "dp": "data_parallel"}
"""The command line's names of what the answer calls by the long one."""
JOB = ("workload", "deadline", "budget", "rpm", "tpm", "batch")
"""What makes a `Job` of a query."""
COUNTS = ("context", "concurrency", *SHORT.values())
AMOUNTS = ("budget", "rpm", "tpm", "ttft", "tpot")
"""Numbers that may be given as the command line takes them: 32k, 2.5."""
DEFAULT_CONTEXT = 8192
MOST = 10**9
_VERSION = re.compile(r"\d|^\s*(main|master|nightly|newest|latest)\s*$", re.IGNORECASE)
"""A release has a number; a checkout of the newest may be called by its branch."""


class PlanOptions(TypedDict, total=False):
    """What can be asked of the planner; what is left out, or None, is the planner's choice."""

    context: int | str | None
    """Tokens of one request, prompt and answer; by default the smaller of the model's maximum and 8192."""
    concurrency: int | str | None
    """Requests of that context that must be held at once; by default 1."""
    backend: str | None
    """The backend to plan with: `vllm`, `sglang`, `hf`, ..."""
    engine_version: str | None
    """The engine's release, as `0.19.1`."""
    quantization: str | None
    """How the weights are held: `none` (16 bit), `gptq`, `awq`, `fp8`, `w8a8`, `gguf-q4_k_m`, ..."""
    tensor_parallel: int | str | None
    """Cards that share every layer; `tp` for short."""
    pipeline_parallel: int | str | None
    """Groups of layers, each on cards of its own; `pp` for short."""
    data_parallel: int | str | None
    """Copies of the model; `dp` for short."""
    tp: int | str | None
    """`tensor_parallel`, as the command line calls it."""
    pp: int | str | None
    """`pipeline_parallel`, as the command line calls it."""
    dp: int | str | None
    """`data_parallel`, as the command line calls it."""
    kv_dtype: str | None
    """What the KV cache holds: `auto`, `fp8`, `int8`, ..."""
    objective: str | None
    """What to rank by: `quality` (the default), `throughput`, `latency` or `cost`."""
    trust_remote_code: bool | None
    """Consents to code from the model's repository, where an engine needs it."""
    workload: str | Workload | None
    """A job to time and price: `longmemeval-s`, `locomo`, `IN:OUT:N` or a .jsonl file of requests."""
    deadline: str | float | None
    """When the workload must be done: `12h`, `3d`, `tomorrow 9:00`, or seconds."""
    budget: float | str | None
    """Dollars that the workload may cost."""
    headroom: str | float | None
    """What of each card stays free: `10%`."""
    rpm: float | str | None
    """Requests a minute that a provider takes: a workload's hours follow from it."""
    tpm: float | str | None
    """Tokens a minute that a provider takes, prompts and answers together."""
    batch: bool | None
    """Price the workload at the provider's batch service."""
    ttft: float | str | None
    """Milliseconds that the first token may take; what is predicted to take longer is no plan."""
    tpot: float | str | None
    """Milliseconds that each further token may take."""
    offload: bool | None
    """Layers that the cards do not hold may stay with the host's processor, where an engine can do that."""
    like: str | None
    """Plan a model that nobody knows, as a fine-tune, by the shapes of this one."""


@dataclass(frozen=True)
class Query:
    """None leaves the choice to the planner. `Query.of` reads keywords and the command line's words."""

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
    trust_remote_code: bool = False
    headroom: float = 0.0
    """Share of each card that stays free."""
    ttft: float | None = None
    tpot: float | None = None
    """What an answer may take, in milliseconds."""
    offload: bool = False
    """Layers may stay with the host's processor."""
    like: str | None = None
    """The known model whose shapes the named one has."""
    job: Job | None = None
    """The workload that the plan is for: bounds the context, and is timed and priced."""

    @classmethod
    def of(cls, **options: Unpack[PlanOptions]) -> Self:
        """The query that keywords spell; an unknown one is refused with the nearest name."""
        given: dict[str, Any] = {}
        for name, value in options.items():
            known_name("option", name, PlanOptions.__annotations__)
            full = SHORT.get(name, name)
            if isinstance(value, str) and full in (*COUNTS, *AMOUNTS):
                value = _read(full, value)
            if value is not None and given.setdefault(full, value) != value:
                raise InvalidInput(f"{name}={value!r} and {full}={given[full]!r} contradict each other")
        job = {name: given.pop(name) for name in JOB if name in given}
        if not job:
            return cls(**given)
        from memserve.plan.job import read

        return cls(**given, job=read(**job))

    def of_model(self, model: ModelSpec) -> Self:
        """The query for a model: its job as the model does it."""
        if model.embeds and self.answer_ms:
            raise InvalidInput(f"{model.id} writes no tokens: leave --ttft and --tpot out")
        if self.job and self.job.at_provider and model.blocks and installed.plans_locally(self.backend):
            said = ", ".join(f"--{name}" for name in self.job.at_provider)
            raise InvalidInput(f"{model.id} is planned on cards, not at a provider: leave {said} out")
        return self if self.job is None else replace(self, job=self.job.of(model))

    @property
    def answer_ms(self) -> dict[str, float]:
        """The times that an answer must keep to."""
        return {name: ms for name, ms in (("ttft", self.ttft), ("tpot", self.tpot)) if ms is not None}

    def __post_init__(self) -> None:
        counts = {
            "context": self.context, "concurrency": self.concurrency, "tp": self.tensor_parallel,
            "pp": self.pipeline_parallel, "dp": self.data_parallel,
        }  # fmt: skip
        for name, count in counts.items():
            _positive(name, count)
        for name in ("backend", "engine_version", "quantization", "kv_dtype", "objective", "like"):
            _word(name, getattr(self, name))
        for name, ms in self.answer_ms.items():
            if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 < ms < float("inf"):
                raise InvalidInput(f"{name} must be milliseconds above 0, not {str(ms)[:40]!r}")
        if self.backend is not None:
            object.__setattr__(self, "backend", self.backend.strip().lower())
        said = self.engine_version
        if said is not None and not (_VERSION.search(said) and len(said.strip()) <= 80):
            raise InvalidInput(f"an engine version is one such as 0.19.1, or main, not {said[:40]!r}")
        known_name("objective", self.objective, OBJECTIVES)
        object.__setattr__(self, "headroom", share_of(self.headroom))
        if self.kv_dtype is not None:
            known_name("KV dtype", self.kv_dtype, KV_DTYPES)
        if self.quantization is not None:
            object.__setattr__(self, "quantization", quantization_name(self.quantization))


def share_of(word: str | float) -> float:
    """`10%` or 0.1: a share of each card."""
    text = str(word).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InvalidInput(f"headroom is a share of each card, as 10% or 0.1, not {text[:40]!r}")
    return share


def quantization_name(word: str) -> str:
    """memserve's name of a quantization, from the words that people use for it."""
    name = word.strip().lower()
    name = QUANTIZATION_WORDS.get(name, name)
    if name in WEIGHTS:
        return name
    if f"gguf-{name}" in WEIGHTS:
        return f"gguf-{name}"
    said = re.match(r"(?P<file>i?q)?[a-z-]*(?P<bits>[2-8])", BITS.get(name, name))
    near = {"4": ["awq", "gptq", "nf4"], "8": ["fp8", "w8a8", "int8"]}.get(said["bits"], []) if said else []
    levels = [known for known in WEIGHTS if said and known.startswith(f"gguf-q{said['bits']}")][:1]
    near = [*levels, *near] if said and said["file"] else [*near, *levels]
    if not near:
        return known_name("quantization", name, WEIGHTS)
    words = f"unknown quantization {word[:40]!r}: did you mean {', '.join(near)}?"
    raise UnknownName(words, suggestions=tuple(near))


def _read(name: str, text: str) -> float:
    """A number as the command line reads it."""
    from argparse import ArgumentTypeError

    from memserve.cli import amount, count

    try:
        return count(text) if name in COUNTS else amount(text)
    except ArgumentTypeError as wrong:
        raise InvalidInput(f"{name}: {wrong}") from None


def _positive(name: str, count: object) -> None:
    whole = isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MOST
    if count is not None and not whole:
        raise InvalidInput(f"{name} must be a whole number from 1 to {MOST:,}, not {str(count)[:40]!r}")


def _word(name: str, word: object) -> None:
    if word is not None and not isinstance(word, str):
        raise InvalidInput(f"{name} must be a word, not {str(word)[:40]!r}")


def known_name(what: str, word: str, words: Iterable[str]) -> str:
    """The word, if it is one of the words; refused with the nearest of them if not."""
    known = tuple(words)
    if word in known:
        return word
    from difflib import get_close_matches

    near = tuple(get_close_matches(word, known, n=3))
    meant = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known[:12])}"
    raise UnknownName(f"unknown {what} {word[:40]!r}: {meant}", suggestions=near)
