"""Constants of a user's own machine, learnt from a start-up log and added to later accounts.

The profile is a small JSON file: {"schema": 1, "profiles": [{"backend", "card", "tensor", ...}]}.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from memserve.engines.memory import Footprint
from memserve.errors import InvalidInput
from memserve.memory.calibration_file import default_path
from memserve.memory.startup_log import StartupLog

SCHEMA = 1
PLAUSIBLE_FACTOR = (0.1, 10.0)
"""An activation further from our own than this belongs to another model or batch size."""


@dataclass(frozen=True)
class Calibration:
    """What one start taught about one backend on one kind of card. Bytes per card; None: nothing learnt."""

    backend: str
    card: str
    tensor: int = 1
    version: str | None = None
    total: int | None = None
    """What the engine reports as the card's memory."""
    non_torch: int | None = None
    graphs: int | None = None
    activation: float | None = None
    """Measured activation over the accounted one."""
    weights: float | None = None
    """Measured weights over the accounted ones: shown, never applied to another model."""
    log: str = ""
    date: str = ""

    @property
    def empty(self) -> bool:
        """Whether it would change no account."""
        return (self.total, self.non_torch, self.graphs, self.activation) == (None, None, None, None)

    def apply(self, footprint: Footprint) -> Footprint:
        """The same start with this machine's constants; the KV cache takes what is left."""
        activation = round(footprint.activation * (self.activation or 1.0))
        non_torch = footprint.non_torch if self.non_torch is None else self.non_torch
        graphs = footprint.graphs if self.graphs is None else max(0, self.graphs)
        total = self.total or footprint.total
        usable = round(footprint.usable * total / footprint.total) if footprint.total else footprint.usable
        grown = usable - footprint.usable
        taken = activation - footprint.activation + non_torch - footprint.non_torch
        if _budgets_graphs(footprint):
            taken += graphs - footprint.graphs
        kv = max(0, footprint.kv_cache + grown - taken)
        share = kv / footprint.kv_cache if footprint.kv_cache else 0.0
        corrected = replace(
            footprint, total=total, usable=usable, activation=activation, non_torch=non_torch, graphs=graphs,
            kv_cache=kv, kv_tokens=int(footprint.kv_tokens * share),
            max_concurrency=footprint.max_concurrency * share,
        )  # fmt: skip
        if not kv and footprint.kv_cache:
            return corrected.fails(
                "refused", "with this machine's own constants nothing is left for the KV cache"
            )
        return corrected


def _budgets_graphs(footprint: Footprint) -> bool:
    """Whether this account left space for the graphs within the budget."""
    claimed = footprint.weights + footprint.activation + footprint.non_torch + footprint.kv_cache
    return footprint.graphs > 0 and footprint.usable - claimed >= footprint.graphs // 2


def learn(log: StartupLog, *, card: str, footprint: Footprint | None = None, name: str = "",
          date: str = "") -> Calibration:  # fmt: skip
    """The constants in a log; with the account of that very start, its activation factor too."""
    return Calibration(
        backend=log.backend, card=card, tensor=log.tensor or 1, version=log.version, total=log.total,
        non_torch=_within(log.non_torch, log.total), graphs=_within(log.graphs, log.total),
        activation=_factor(log.activation, footprint.activation if footprint else None),
        weights=_factor(log.weights, footprint.weights if footprint else None), log=name, date=date,
    )  # fmt: skip


def _within(size: int | None, total: int | None) -> int | None:
    """Negative graphs are an artefact of some releases, and no constant is half a card."""
    if size is None or size < 0 or (total is not None and size > total // 2):
        return None
    return size


def _factor(measured: int | None, accounted: int | None) -> float | None:
    if not measured or not accounted:
        return None
    factor = measured / accounted
    low, high = PLAUSIBLE_FACTOR
    return factor if low <= factor <= high else None


def load(path: Path | None = None) -> tuple[Calibration, ...]:
    """Every profile of the file; none where there is no file."""
    file = path or default_path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the calibration {str(file)!r}: {error}") from None
    try:
        return tuple(_profile(row) for row in _rows(json.loads(text)))
    except (ValueError, TypeError, KeyError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(f"{str(file)!r} is no calibration of memserve: {why}",
                           hint="delete it and run --calibrate again") from None  # fmt: skip


def _rows(read: Any) -> list[dict[str, Any]]:
    if (
        not isinstance(read, dict)
        or read.get("schema") != SCHEMA
        or not isinstance(read.get("profiles"), list)
    ):
        raise ValueError(f"schema {SCHEMA} with a list of profiles is expected")
    rows: list[dict[str, Any]] = read["profiles"]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a profile is not an object")
    return rows


def _profile(row: dict[str, Any]) -> Calibration:
    known = {field.name for field in fields(Calibration)}
    profile = Calibration(**{name: value for name, value in row.items() if name in known})
    for name in ("total", "non_torch", "graphs", "activation", "weights"):
        value = getattr(profile, name)
        if value is not None and (not isinstance(value, int | float) or value < 0):
            raise ValueError(f"{name} is {value!r}")
    return profile


def save(calibration: Calibration, path: Path | None = None) -> Path:
    """Adds a profile, in place of an older one of the same backend, card and tensor parallelism."""
    file = path or default_path()
    kept = [old for old in load(file) if _key(old) != _key(calibration)]
    text = json.dumps({"schema": SCHEMA, "profiles": [asdict(one) for one in (*kept, calibration)]}, indent=1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".new")
        half.write_text(f"{text}\n", encoding="utf-8")
        half.replace(file)
    except OSError as error:
        raise InvalidInput(f"cannot write the calibration {str(file)!r}: {error.strerror}") from None
    return file


def find(known: Iterable[Calibration], *, backend: str, card: str, tensor: int) -> Calibration | None:
    """The profile of this backend on this card, at this tensor parallelism; the last learnt one wins."""
    fitting = [one for one in known if _key(one) == (backend, card, tensor)]
    return fitting[-1] if fitting else None


def _key(calibration: Calibration) -> tuple[str, str, int]:
    return calibration.backend, calibration.card, calibration.tensor
