"""The search behind fit_speed.py: constants that explain rows, held back by priors. Needs numpy and scipy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_rows
from scipy.optimize import least_squares

from memserve.speed.roofline import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from speed_rows import Row

    from memserve.speed.roofline.layout import Constants

Key = tuple[str, str]
Values = dict[Key, float]

SERVERS = ("vllm", "sglang", "trtllm")
NOISE = 0.1
"""Repeated measurements of one configuration differ by about this much."""
TIE = 0.1
"""How far, in log space, one server's constant is from the mean of the three: their kernels are similar."""
STEP = 1e-4


def chosen(values: Mapping[Key, float], engine: str, family: str, generation: str | None) -> Constants:
    """Constants from fitted values, as `constants.of` builds them from the files; flags are not fitted."""
    known = layout.facts(engine).get("constants", {})
    base = layout.Constants(**{name: value for name, value in known.items() if value is True})
    for scope in ("default", engine):
        base = replace(base, **{name: value for (where, name), value in values.items() if where == scope})
    for scope in (f"card {family}", f"generation {generation}"):
        factors = {name: value for (where, name), value in values.items() if where == scope}
        base = replace(base, **{name: getattr(base, name) * factor for name, factor in factors.items()})
    return base


def predictor(values: Mapping[Key, float]) -> Callable[[Row], float]:
    """Predicts rows with these values."""
    cache: dict[tuple[str, str, str | None], Constants] = {}

    def run(row: Row) -> float:
        seen = speed_rows.situation(row)
        key = (seen.engine, layout.family(seen.setup.card), seen.generation)
        if key not in cache:
            cache[key] = chosen(values, *key)
        return speed_rows.predicted(row, seen._replace(setup=seen.setup._replace(constants=cache[key])))

    return run


def weight(row: Row) -> float:
    """Sources whose tests are described less well count less; so do answers that were speculated."""
    if row.group == "gpustack-perflab" or speed_rows.speculated(row):
        return 0.5
    return 0.8 if row.figure == "throughput" or row.alike else 1.0


@dataclass(frozen=True)
class Problem:
    """Rows, the values to find with their priors, and those that are held."""

    rows: Sequence[Row]
    priors: Mapping[Key, tuple[Any, ...]]
    fixed: Mapping[Key, float]

    @property
    def keys(self) -> list[Key]:
        """The values to find, in order."""
        return list(self.priors)

    def logs(self, rows: Sequence[Row], x: Any) -> Any:
        """Logarithms of the predictions."""
        run = predictor(dict(self.fixed) | dict(zip(self.keys, np.exp(x).tolist(), strict=True)))
        return np.log([max(run(row), 1e-9) for row in rows])

    def touched(self, key: Key) -> Any:
        """Which rows a value can move."""
        scope, name = key
        own = {where for where, known in self.priors if known == name}
        seen = [speed_rows.situation(row) for row in self.rows]
        if scope == "default":
            return np.array([one.engine not in own for one in seen])
        if scope.startswith("card "):
            return np.array([f"card {layout.family(one.setup.card)}" == scope for one in seen])
        if scope.startswith("generation "):
            return np.array([f"generation {one.generation}" == scope for one in seen])
        return np.array([one.engine == scope for one in seen])

    def held(self, x: Any) -> Any:
        """Residuals of the priors, and of what the servers share."""
        start = np.log([prior[0] for prior in self.priors.values()])
        parts = [(x - start) / np.array([prior[1] for prior in self.priors.values()])]
        for name in dict.fromkeys(name for _, name in self.keys):
            places = [self.keys.index((scope, name)) for scope in SERVERS if (scope, name) in self.priors]
            parts.append((x[places] - x[places].mean()) / TIE if len(places) > 1 else np.zeros(0))
        return np.concatenate(parts)


def fit(rows: Sequence[Row], priors: Mapping[Key, tuple[Any, ...]], fixed: Values, rounds: int,
        near: Values) -> Values:  # fmt: skip
    """The values of `priors` that explain the rows best, the others held; `near`: where to begin looking."""
    problem = Problem(rows, priors, fixed)
    target = np.log([row.value for row in rows])
    weights = np.array([weight(row) for row in rows]) / NOISE
    touched = [np.flatnonzero(problem.touched(key)) for key in problem.keys]

    def residuals(x: Any) -> Any:
        return np.concatenate([weights * (problem.logs(rows, x) - target), problem.held(x)])

    def slopes(x: Any) -> Any:
        before = residuals(x)
        found = np.zeros((len(before), len(x)))
        for column, places in enumerate(touched):
            moved = x.copy()
            moved[column] += STEP
            logs = problem.logs([rows[place] for place in places], moved)
            found[places, column] = (weights[places] * (logs - target[places]) - before[places]) / STEP
            found[len(rows) :, column] = (problem.held(moved) - before[len(rows) :]) / STEP
        return found

    edges = [prior[2] if len(prior) > 2 else (1e-12, 1e3) for prior in priors.values()]
    bounds = tuple(np.log([edge[side] for edge in edges]) for side in (0, 1))
    begin = np.log([near.get(key, prior[0]) for key, prior in priors.items()])
    best = least_squares(
        residuals, np.clip(begin, bounds[0] + 1e-6, bounds[1] - 1e-6), jac=slopes, loss="soft_l1",
        max_nfev=rounds, bounds=bounds, x_scale=[prior[1] for prior in priors.values()], ftol=1e-4,
    )  # fmt: skip
    return fixed | dict(zip(problem.keys, np.exp(best.x).tolist(), strict=True))


def mean(values: Values, name: str) -> float:
    """The servers' geometric mean: what an engine that nobody timed is taken to need."""
    return math.prod(values[engine, name] for engine in SERVERS) ** (1 / len(SERVERS))
