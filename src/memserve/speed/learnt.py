"""Speed learnt from measurements of one's own machine: factors on the constants of the speed model.

The file is {"schema": 1, "speeds": [{"backend", "card", "tensor", "model", "factors", ...}]}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Any

from memserve import files
from memserve.errors import InvalidInput
from memserve.speed.roofline.layout import Constants

FILE = files.SPEED
SHARES = {
    "reading": ("weights",), "keys": ("cache",), "arithmetic": ("gemm", "unpack_gemm"),
    "prompts": ("prefill", "attention"),
}  # fmt: skip
"""What takes so many times as long if its share of the hardware's peak is so much smaller."""
SECONDS = {
    "steps": ("layer_s", "quantized_layer_s", "step_s", "reduce_s", "prompt_s"),
    "sequences": ("sequence_s",),
    "stalls": ("stall",),
    "first": ("first_s",), "polls": ("polls",), "waiting": ("queue",),
}  # fmt: skip
CAUSES = (*SHARES, *SECONDS)
FIGURES = ("ttft_ms", "tpot_ms", "output_tokens_per_s")
MOST = 128
"""Rows that are kept of one model; the newest count."""
LEAST_RANGE = 0.15
PULL = 0.0005
"""What a factor's distance from 1 costs beside the error: what no row shows stays as it was."""
ROUNDS, LARGEST = 100, 9.0
FAR = {"sequences": 5.0}
"""ln of a factor with which a second search begins: what is next to nothing in theory shows no slope at 1."""
Factors = Mapping[str, float]
Row = Mapping[str, float]


@dataclass(frozen=True)
class Learnt:
    """What one model on one kind of card taught about one engine."""

    backend: str
    card: str
    tensor: int = 1
    version: str | None = None
    model: str = ""
    quantization: str | None = None
    factors: Factors = field(default_factory=dict)
    """Cause -> how many times as long it takes."""
    error: float = 0.0
    """Root mean square of ln(measured / predicted) on the rows that taught it."""
    rows: tuple[Row, ...] = ()
    """input_tokens, output_tokens, concurrency, and the figures that were measured."""
    source: str = ""
    date: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """One is kept of each."""
        return self.backend, self.card, self.tensor, self.version, self.model, self.quantization

    def scaled(self, constants: Constants) -> Constants:
        """The constants of this machine."""
        return scaled(constants, self.factors)

    @property
    def range(self) -> tuple[float, float]:
        """Measured over predicted: what 90 % of further rows should stay within."""
        wide = max(LEAST_RANGE, 2 * self.error)
        return exp(-wide), exp(wide)


def scaled(constants: Constants, factors: Factors) -> Constants:
    """Constants under which each cause takes so many times as long."""
    shares = {
        name: 1 / factors[cause] for cause, names in SHARES.items() if cause in factors for name in names
    }
    times = {name: factors[cause] for cause, names in SECONDS.items() if cause in factors for name in names}
    return replace(constants, **{n: getattr(constants, n) * f for n, f in {**shares, **times}.items()})


def fit(rows: Sequence[Row], predict: Callable[[Row, Factors], Row]) -> tuple[dict[str, float], float]:
    """The factors that bring predictions nearest to the rows, and the error that is left.

    Least squares of ln(measured / predicted) by Levenberg and Marquardt, in the factors' logarithms, from two
    beginnings: as predicted, and with a large share of what is next to nothing in theory.
    """
    import numpy as np

    def misses(place: Any) -> Any:
        factors = dict(zip(CAUSES, np.exp(place), strict=True))
        told = [predict(row, factors) for row in rows]
        return np.array([log(row[name] / one[name]) for row, one in zip(rows, told, strict=True)
                         for name in FIGURES if row.get(name)])  # fmt: skip

    starts = (np.zeros(len(CAUSES)), np.array([FAR.get(cause, 0.0) for cause in CAUSES]))
    _, place, found = min((_descended(misses, start) for start in starts), key=lambda one: one[0])
    factors = {cause: round(exp(value), 4) for cause, value in zip(CAUSES, place, strict=True)}
    return factors, float(np.sqrt(np.mean(found**2)))


def _descended(misses: Callable[[Any], Any], place: Any) -> tuple[float, Any, Any]:
    """The valley below a beginning: what it costs, where it lies, what is missed there."""
    import numpy as np

    damping, width, found = 0.1, 0.02, misses(place)
    for _ in range(ROUNDS):
        if damping > 1e6:
            break
        slopes = np.array([(misses(place + side) - found) / width for side in np.eye(len(CAUSES)) * width]).T
        matrix = slopes.T @ slopes + (PULL + damping) * np.eye(len(CAUSES))
        moved = place - np.linalg.solve(matrix, slopes.T @ found + PULL * place)
        moved = np.clip(moved, -LARGEST, LARGEST)
        after = misses(moved)
        if after @ after + PULL * moved @ moved < found @ found + PULL * place @ place:
            place, found, damping = moved, after, damping / 3
        else:
            damping *= 4
    return float(found @ found + PULL * place @ place), place, found


def find(backend: str, card: str, tensor: int, model: str | None = None) -> Learnt | None:
    """What was learnt of this engine on such cards: of the same model, else of another."""
    known = [one for one in everything() if (one.backend, one.card, one.tensor) == (backend, card, tensor)]
    own = [one for one in known if one.model == model]
    return next(reversed(own or known), None)


@cache
def everything() -> tuple[Learnt, ...]:
    """All that the file holds, read once."""
    return load() if files.is_configured(FILE) else ()


def load(path: Path | None = None) -> tuple[Learnt, ...]:
    """All that a file holds; `InvalidInput` where it is none of ours."""
    file = path or Path(files.configured(FILE))
    try:
        rows = files.parsed(file.read_text(encoding="utf-8"))["speeds"]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _foreign(str(file), error) from None
    return parsed(rows, str(file))


def parsed(rows: Any, name: str = "the file") -> tuple[Learnt, ...]:
    """What somebody learnt, from JSON."""
    try:
        return tuple(_read(row) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _foreign(name, error) from None


def _foreign(name: str, error: Exception) -> InvalidInput:
    return InvalidInput(f"{name} holds no speeds learnt by memserve: {str(error)[:80]}",
                        hint="delete it and run --calibrate again")  # fmt: skip


def _read(row: Mapping[str, Any]) -> Learnt:
    known = {part.name for part in fields(Learnt)}
    found = Learnt(**{name: value for name, value in row.items() if name in known})
    if not all(cause in CAUSES and 1e-4 < factor < 1e4 for cause, factor in found.factors.items()):
        raise ValueError(f"a factor of {found.model[:30] or 'a row'} is unknown, or out of bounds")
    return replace(found, rows=tuple(found.rows))


def save(learnt: Iterable[Learnt]) -> Path:
    """Write all that is known, and no more."""
    file = Path(files.configured(FILE))
    text = json.dumps({"schema": 1, "speeds": [asdict(one) for one in learnt]}, indent=1)
    files.write(file, f"{text}\n")
    everything.cache_clear()
    return file
