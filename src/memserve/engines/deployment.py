"""What a room's `memory` answers: how an engine would divide one card's memory at start-up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec

Outcome: TypeAlias = Literal["runs", "refused", "out_of_memory"]


@dataclass(frozen=True)
class Layout:
    """How a model is spread: cards = tensor x pipeline x data."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    """Whole experts per card instead of slices of every expert."""
    attention_data: int = 1
    """SGLang's DP attention: attention replicated over so many groups of the tensor ranks."""

    @property
    def cards(self) -> int:
        """Cards taken in all."""
        return self.tensor * self.pipeline * self.data


@dataclass(frozen=True)
class Deployment:
    """Everything about one start of an engine that decides its memory. None: the engine's own default."""

    backend: str
    engine_version: str
    quantization: str = "none"
    """As the weights are held: none, gptq, awq, nf4, int8, fp8, w8a8, w4a16, ..."""
    dtype: str = "float16"
    kv_dtype: str = "auto"
    layout: Layout = Layout()
    context: int = 8192
    concurrency: int = 1
    utilization: float | None = None
    """vLLM's gpu_memory_utilization, SGLang's mem_fraction_static, LMDeploy's cache_max_entry_count."""
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    block_size: int | None = None
    eager: bool = False
    kv_bytes: int | None = None
    """A KV pool that the caller fixed in bytes."""
    options: tuple[tuple[str, str], ...] = ()
    """Flags of one engine only, by their long name without dashes."""

    def option(self, name: str) -> str | None:
        """The value of an engine's own flag, or None."""
        return dict(self.options).get(name)


@dataclass(frozen=True)
class Footprint:
    """One card's memory in bytes, the fullest rank. weights+activation+non_torch+kv_cache <= usable."""

    total: int
    usable: int
    weights: int
    activation: int
    non_torch: int
    graphs: int
    kv_cache: int
    kv_tokens: int
    """As the engine prints it, per data-parallel rank; 0 where the engine has no such pool."""
    max_concurrency: float
    """Requests of the full context that the KV pool holds at once."""
    outcome: Outcome = "runs"
    reasons: tuple[str, ...] = ()
    error: float = 0.0
    """Relative error bar of kv_cache + weights, from the shipped validation set."""

    @property
    def free(self) -> int:
        """Bytes of the card that nothing claims."""
        claimed = self.weights + self.activation + self.non_torch + self.graphs + self.kv_cache
        return self.total - claimed

    def fails(self, outcome: Outcome, reason: str) -> Footprint:
        """The same division, judged."""
        return replace(self, outcome=outcome, reasons=(*self.reasons, reason))


class Accountant(Protocol):
    """A room's `memory`. Pure arithmetic: loads no engine, and takes microseconds to a few milliseconds."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card's memory as this engine would."""
        ...

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that `deployment` could be started with on this machine; 0: none."""
        ...
