"""The search behind fit_speed.py: constants that explain rows, held back by priors. Needs numpy and scipy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_arrays
import speed_rows
from scipy.optimize import least_squares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from speed_arrays import Record
    from speed_rows import Row

Key = tuple[str, str]
Values = dict[Key, float]

SERVERS = ("vllm", "sglang", "trtllm")
NOISE = 0.1
"""Repeated measurements of one configuration differ by about this much."""
TIE = 0.1
"""How far, in log space, one server's constant is from the mean of the three: their kernels are similar."""
STEP = 1e-4


def weight(row: Row) -> float:
    """Sources whose tests are described less well count less; so do answers that were speculated.

    Few rows tell what a full machine does, so each counts more.
    """
    if row.group == "gpustack-perflab" or speed_rows.speculated(row):
        return 0.5
    if row.figure == "throughput":
        return 1.5 if row.concurrency is None else 0.8
    return 0.8 if row.alike else 1.0


@dataclass(frozen=True)
class Problem:
    """Rows, the values to find with their priors, those that are held, and what servers share."""

    rows: Record
    priors: Mapping[Key, tuple[Any, ...]]
    fixed: Mapping[Key, float]
    tied: Sequence[str] = ()

    @property
    def keys(self) -> list[Key]:
        """The values to find, in order."""
        return list(self.priors)

    def logs(self, rows: Record, x: Any) -> Any:
        """Logarithms of the predictions."""
        values = dict(self.fixed) | dict(zip(self.keys, np.exp(x).tolist(), strict=True))
        return np.log(np.maximum(speed_arrays.predict(rows, values), 1e-9))

    def touched(self, key: Key) -> Any:
        """Which rows a value can move."""
        scope, name = key
        if scope == "default":
            return ~np.isin(self.rows.engine, [where for where, known in self.priors if known == name])
        kind, _, rest = scope.partition(" ")
        column = {"card": self.rows.family, "generation": self.rows.generation}.get(kind)
        return self.rows.engine == scope if column is None else column == rest

    def held(self, x: Any) -> Any:
        """Residuals of the priors, and of what the servers share."""
        start = np.log([prior[0] for prior in self.priors.values()])
        parts = [(x - start) / np.array([prior[1] for prior in self.priors.values()])]
        for name in self.tied:
            places = [self.keys.index((scope, name)) for scope in SERVERS if (scope, name) in self.priors]
            parts.append((x[places] - x[places].mean()) / TIE if len(places) > 1 else np.zeros(0))
        return np.concatenate(parts)


def fit(rows: Record, priors: Mapping[Key, tuple[Any, ...]], fixed: Values, rounds: int, near: Values,
        tied: Sequence[str] = ()) -> Values:  # fmt: skip
    """The values of `priors` that explain the rows best, the others held; `near`: where to begin looking."""
    problem, count = Problem(rows, priors, fixed, tied), len(rows.value)
    target, weights = np.log(rows.value), np.array([weight(row) for row in rows.row]) / NOISE
    touched = [np.flatnonzero(problem.touched(key)) for key in problem.keys]
    parts = [rows.part(places) for places in touched]

    def residuals(x: Any) -> Any:
        return np.concatenate([weights * (problem.logs(rows, x) - target), problem.held(x)])

    def slopes(x: Any) -> Any:
        before = residuals(x)
        found = np.zeros((len(before), len(x)))
        for column, places in enumerate(touched):
            moved = x.copy()
            moved[column] += STEP
            if len(places):
                there = weights[places] * (problem.logs(parts[column], moved) - target[places])
                found[places, column] = (there - before[places]) / STEP
            found[count:, column] = (problem.held(moved) - before[count:]) / STEP
        return found

    def loss(squares: Any) -> Any:
        """A row far off hardly counts (Cauchy); priors hold as firmly as they are."""
        part, held = squares[:count], np.ones(len(squares) - count)
        return np.array([
            np.concatenate([np.log1p(part), squares[count:]]), np.concatenate([1 / (1 + part), held]),
            np.concatenate([-1 / (1 + part) ** 2, 0 * held]),
        ])  # fmt: skip

    edges = [prior[2] if len(prior) > 2 else (1e-12, 1e3) for prior in priors.values()]
    bounds = tuple(np.log([edge[side] for edge in edges]) for side in (0, 1))
    begin = np.log([near.get(key, prior[0]) for key, prior in priors.items()])
    best = least_squares(
        residuals, np.clip(begin, bounds[0] + 1e-6, bounds[1] - 1e-6), jac=slopes, loss=loss,
        max_nfev=rounds, bounds=bounds, x_scale=[prior[1] for prior in priors.values()], ftol=1e-4,
    )  # fmt: skip
    return fixed | dict(zip(problem.keys, np.exp(best.x).tolist(), strict=True))


def mean(values: Values, name: str) -> float:
    """The servers' geometric mean: what an engine that nobody timed is taken to need."""
    return math.prod(values[engine, name] for engine in SERVERS) ** (1 / len(SERVERS))
