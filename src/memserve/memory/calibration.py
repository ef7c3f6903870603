"""Constants of a user's own machine, learnt from a start-up log and added to later accounts.

The profile is a small JSON file: {"schema": 1, "profiles": [{"backend", "card", "tensor", ...}]}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from memserve import files
from memserve.engines import installed
from memserve.engines.log import LogFormat
from memserve.engines.memory import Footprint
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB

SCHEMA = 1
PLAUSIBLE_FACTOR = (0.4, 2.5)
"""An activation further from our own than this belongs to another model, sampler or batch size, which
an excerpt of a log does not tell; and so does then what is left."""
LEAST_RESIDUAL = GIB // 50
"""What a log rounds away."""


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
    residual: int | None = None
    """KV cache measured above what is accounted with the constants above."""
    log: str = ""
    date: str = ""

    @property
    def empty(self) -> bool:
        """Whether it would change no account."""
        learnt = (self.total, self.non_torch, self.graphs, self.activation, self.residual)
        return learnt == (None,) * len(learnt)

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
        kv = max(0, footprint.kv_cache + grown - taken + (self.residual or 0))
        share = kv / footprint.kv_cache if footprint.kv_cache else 0.0
        corrected = replace(
            footprint, total=total, usable=usable, activation=activation, non_torch=non_torch, graphs=graphs,
            kv_cache=kv, kv_tokens=int(footprint.kv_tokens * share),
            max_concurrency=footprint.max_concurrency * share,
        )  # fmt: skip
        if footprint.kv_cache and (not kv or corrected.max_concurrency < 1 <= footprint.max_concurrency):
            left = f"{kv / GIB:.2f} GiB are" if kv else "nothing is"
            return corrected.fails(
                "refused", f"with this machine's own constants {left} left for the KV cache"
            )
        return corrected


def _budgets_graphs(footprint: Footprint) -> bool:
    """Whether this account left space for the graphs within the budget."""
    claimed = footprint.weights + footprint.activation + footprint.non_torch + footprint.kv_cache
    return footprint.graphs > 0 and footprint.usable - claimed >= footprint.graphs // 2


def learn(log: StartupLog, *, card: str, footprint: Footprint | None = None, name: str = "",
          date: str = "") -> Calibration:  # fmt: skip
    """The constants in a log; with the account of that very start, its activation factor and what is left."""
    learnt = Calibration(
        backend=log.backend, card=card, tensor=log.tensor or 1, version=log.version, total=log.total,
        non_torch=_within(log.non_torch, log.total), graphs=_within(log.graphs, log.total),
        activation=_factor(log.activation, footprint.activation if footprint else None),
        weights=_factor(log.weights, footprint.weights if footprint else None), log=name, date=date,
    )  # fmt: skip
    return replace(learnt, residual=_residual(log, learnt, footprint))


def _residual(log: StartupLog, learnt: Calibration, footprint: Footprint | None) -> int | None:
    """What no constant explains; a tenth of the card belongs to another model or command."""
    if footprint is None or not footprint.kv_cache or (log.activation and learnt.activation is None):
        return None
    each = footprint.kv_cache / footprint.kv_tokens if footprint.kv_tokens else 0.0
    measured = log.kv_bytes or (log.kv_tokens or 0) * each
    missing = round(measured - learnt.apply(footprint).kv_cache)
    if log.weights:
        missing += log.weights - footprint.weights
    return missing if measured and LEAST_RESIDUAL < abs(missing) < footprint.total // 10 else None


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
    file = path or Path(files.configured(files.CALIBRATION))
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the calibration {str(file)!r}: {error}") from None
    try:
        return parsed(files.parsed(text))
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
    for name in ("total", "non_torch", "graphs", "activation", "weights", "residual"):
        value = getattr(profile, name)
        if value is not None and (not isinstance(value, int | float) or (value < 0 and name != "residual")):
            raise ValueError(f"{name} is {value!r}")
    return profile


def parsed(found: Any) -> tuple[Calibration, ...]:
    """The profiles of a file that another machine of the kind has written."""
    return tuple(_profile(row) for row in _rows(found))


def save(calibration: Calibration, path: Path | None = None) -> Path:
    """Adds a profile, in place of an older one of the same backend, release, card and tensor parallelism."""
    file = path or Path(files.configured(files.CALIBRATION))
    return write_all([*(old for old in load(file) if _key(old) != _key(calibration)), calibration], file)


def write_all(profiles: Iterable[Calibration], path: Path | None = None) -> Path:
    """These profiles and no others."""
    file = path or Path(files.configured(files.CALIBRATION))
    text = json.dumps({"schema": SCHEMA, "profiles": [asdict(one) for one in profiles]}, indent=1)
    files.write(file, f"{text}\n")
    return file


def find(known: Iterable[Calibration], *, backend: str, card: str, tensor: int,
         version: str | None = None) -> Calibration | None:  # fmt: skip
    """The profile of this backend on this card, at this tensor parallelism: the same release's before one of
    the same series, and that before one whose log named none; the last learnt wins."""
    fitting = [one for one in known if (one.backend, one.card, one.tensor) == (backend, card, tensor)]
    for parts in (3, 2):
        same = [
            one for one in fitting if one.version and _release(one.version, parts) == _release(version, parts)
        ]
        if same:
            return same[-1]
    loose = [one for one in fitting if not (one.version and _release(version, 2))]
    return loose[-1] if loose else None


def _release(version: str | None, parts: int = 3) -> tuple[str, ...]:
    """0.19.1rc1 as 0, 19, 1; nothing where no release is named."""
    return tuple(re.findall(r"\d+", version or "")[:parts])


def _key(calibration: Calibration) -> tuple[str, tuple[str, ...], str, int]:
    return calibration.backend, _release(calibration.version), calibration.card, calibration.tensor


MOST_BYTES = 2 * 1024**2
"""A start tells all of this within its first few thousand lines."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RANK = re.compile(r"\b(?:TP|rank=|Worker_TP|DP)([0-9]+)")
_TENSOR_RANK = re.compile(r"(?:\b|_)TP([0-9]{1,3})(?![0-9])")
_FIGURES = (
    "weights", "activation", "non_torch", "graphs", "kv_bytes", "kv_tokens", "blocks", "consumed",
    "requested",
)  # fmt: skip


@dataclass(frozen=True)
class StartupLog:
    """One start as its log tells it. Bytes per card, the fullest rank; None: the log does not say."""

    backend: str
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


def read_log(path: str | Path) -> StartupLog:
    """The log at the beginning of a file."""
    file = Path(path)
    try:
        if not file.is_file() and file.stat():
            raise InvalidInput(f"cannot read the log {str(file)!r}: not a file")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES)
    except OSError as error:
        raise InvalidInput(f"cannot read the log {str(file)!r}: {error.strerror}") from None
    return parse_log(content.decode("utf-8", errors="replace"), name=file.name)


def parse_log(text: str, *, name: str = "the log") -> StartupLog:
    """The figures of one start; `InvalidInput` where there are none."""
    clean = _COLOUR.sub("", text).splitlines()
    logs = installed.logs()
    found = {backend: _gather(clean, log) for backend, log in logs.items() if _may_be(text, log)}
    likely = [backend for backend, figures in found.items() if set(_FIGURES) & set(figures)]
    if not likely:
        raise _unread(name, list(logs.values()))
    backend = max(likely, key=lambda one: (logs[one]["recognised_by"] is not None, len(found[one])))
    last = max(map(int, _TENSOR_RANK.findall(text)), default=0)
    figures = {"tensor": last + 1, **found[backend]} if last else found[backend]
    return _log(backend, figures, logs[backend]["block_size"])


def _unread(name: str, logs: list[LogFormat]) -> InvalidInput:
    ranked = sorted(logs, key=lambda log: (-len(log["lines"]), log["engine"].lower()))
    engines = " or ".join(", ".join(log["engine"] for log in ranked).rsplit(", ", 1))
    lines = " or ".join(list(dict.fromkeys(f"{log['example']!r}" for log in ranked))[:2])
    return InvalidInput(f"{name} has no memory figures of {engines}", hint=f"it should say {lines}")


def _may_be(text: str, log: LogFormat) -> bool:
    return log["recognised_by"] is None or re.search(log["recognised_by"], text) is not None


def _gather(lines: list[str], log: LogFormat) -> dict[str, Any]:
    """Field -> figure, from every row of the table that matches some line. Rows go before later ones."""
    found: dict[str, Any] = {}
    for row in log["lines"]:
        if row["field"] in found:
            continue
        hits = [
            (_rank(line), match[1]) for line in lines for match in _pattern(row["pattern"]).finditer(line)
        ]
        values = [(rank, value) for rank, word in hits if (value := _value(word, row["unit"])) is not None]
        if values:
            found[row["field"]] = _picked(values, row["pick"])
    return found


_pattern = cache(re.compile)


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
    if not isfinite(number):  # hundreds of digits
        return None
    if unit in ("gib", "mib"):
        return round(number * GIB / (1024 if unit == "mib" else 1))
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


def _log(backend: str, figures: dict[str, Any], block_size: int) -> StartupLog:
    _derive(figures, block_size)
    fields = {field: figures.get(field) for field in StartupLog.__dataclass_fields__ if field != "backend"}
    return StartupLog(backend, **fields)


def _derive(figures: dict[str, Any], block_size: int) -> None:
    """What some logs say only as a sum or a difference."""
    weights, peak = figures.get("weights"), figures.get("peak_torch")
    if weights is None and "initial" in figures:
        weights = figures["weights"] = figures["initial"] - figures.get("non_torch", 0)
    if "consumed" in figures and weights is not None:
        figures.setdefault("non_torch", max(0, figures["consumed"] - weights))
    if peak is not None and weights is not None:
        figures.setdefault("activation", max(0, peak - weights))
    if "kv_k" in figures:
        figures.setdefault("kv_bytes", figures["kv_k"] + figures.get("kv_v", 0))
    figures.setdefault("kv_tokens", figures.get("pool_tokens"))
    if figures["kv_tokens"] is None and "blocks" in figures:
        figures["kv_tokens"] = figures["blocks"] * figures.get("block_size", block_size)
