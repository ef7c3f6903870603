"""What a backend's `memory` answers: how its engine would divide one card's memory at start-up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec


class Assumption(NamedTuple):
    """One value that nobody stated."""

    name: str
    value: str | int | float | bool
    source: str
    """Where it is from, or how it was guessed."""


Outcome: TypeAlias = Literal["runs", "refused", "out_of_memory"]


class Bars(NamedTuple):
    """How far 90 % of real starts of this class lie below and above the figures, in bytes."""

    weights: tuple[int, int]
    kv_cache: tuple[int, int]
    token_bytes: float
    """What one token of the pool takes."""


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
    """Relative error bar of kv_cache + weights, where no class of starts gives `bars`."""
    bars: Bars | None = None

    @property
    def error_bars(self) -> Bars:
        """How far off the figures may be, by class or by the engine's one relative figure."""
        if self.bars is not None:
            return self.bars
        kv = round(self.error * (self.kv_cache + self.weights))
        weights = round(self.error * self.weights / 2)
        return Bars((weights, weights), (kv, kv), self.kv_cache / self.kv_tokens if self.kv_tokens else 0.0)

    @property
    def free(self) -> int:
        """Bytes of the card that nothing claims."""
        claimed = self.weights + self.activation + self.non_torch + self.graphs + self.kv_cache
        return self.total - claimed

    def fails(self, outcome: Outcome, reason: str) -> Footprint:
        """The same division, judged."""
        return replace(self, outcome=outcome, reasons=(*self.reasons, reason))


class Accountant(Protocol):
    """A backend's `memory`. Pure arithmetic: loads no engine, takes at most a few milliseconds."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card's memory as this engine would."""
        ...

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that `deployment` could be started with on this machine; 0: none."""
        ...


@runtime_checkable
class Assuming(Protocol):
    """An accountant that tells what it took from the release, the card and the environment."""

    def assumptions(self, model: ModelSpec, machine: Machine,
                    deployment: Deployment) -> tuple[Assumption, ...]:  # fmt: skip
        """What was not said, each with its source."""
        ...


def assumptions(accountant: Accountant, model: ModelSpec, machine: Machine,
                deployment: Deployment) -> tuple[Assumption, ...]:  # fmt: skip
    """What an account of memory rests on; nothing where its backend does not tell."""
    return accountant.assumptions(model, machine, deployment) if isinstance(accountant, Assuming) else ()
