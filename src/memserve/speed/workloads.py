"""Workloads: what a whole benchmark asks for, and how long it takes and costs on a machine or an API.

A workload is a number of equal requests. `prefix_tokens` of each are shared by `shared` requests in a row
(a conversation with many questions), so an engine or provider with a prefix cache reads them once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any

from memserve import files
from memserve.engines.memory import Assumption
from memserve.errors import InvalidInput, UnknownName
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.speed.prices import Price
from memserve.speed.result import MOST_TOKENS, number

if TYPE_CHECKING:
    from pathlib import Path


UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
LONGEST = 100 * 365 * 86400.0
HINT = "write 12h, 90m, 3d, 1h30m, seconds, 18:30, tomorrow 9:00 or 2026-11-21 09:00"


def seconds_of(word: str, now: datetime | None = None) -> float:
    """Seconds until a deadline; clock times are local, and one without a day is the next such time."""
    text = " ".join(word.strip().lower().split())
    found = _span(text)
    if found is None:
        found = _until(text, now or datetime.now().astimezone())
    if found is None or found > LONGEST:
        raise InvalidInput(f"not a deadline: {word[:40]!r}", hint=HINT)
    if found <= 0:
        raise InvalidInput(f"the deadline must lie ahead, not at {word[:40]!r}", hint=HINT)
    return found


def _span(text: str) -> float | None:
    """A length of time, where the text is one."""
    named = r"(?<=\d) ?(days?|hours?|hrs?|minutes?|mins?|seconds?|secs?)\b ?"
    text = re.sub(named, lambda unit: unit[1][0], text)
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms]?)+", text):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _until(text: str, now: datetime) -> float | None:
    """Seconds to a moment, where the text is one."""
    clock = re.fullmatch(r"(?:(today|tomorrow) )?(?:at )?(\d{1,2}):(\d{2})", text)
    if clock is None:
        return _dated(text, now)
    day, hour, minute = clock.group(1), int(clock.group(2)), int(clock.group(3))
    if hour > 23 or minute > 59:
        return None
    there = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if day == "tomorrow" or (day is None and there <= now):
        there += timedelta(days=1)
    return (there - now).total_seconds()


def _dated(text: str, now: datetime) -> float | None:
    try:
        there = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=now.tzinfo)
    return (there - now).total_seconds()


CHARACTERS = 4.0
"""Characters per token of English text, where a file gives text and no counts."""
DEFAULT_OUTPUT = 512
A_DAY = 24 * 3600.0
PARALLEL = 64
"""Requests kept in flight if the workload is asked of a server and nobody says how many."""


@dataclass(frozen=True)
class Workload:
    """So many requests of one size."""

    name: str
    requests: int
    input_tokens: float
    """New tokens of a request, behind the shared prefix."""
    output_tokens: float
    prefix_tokens: float = 0.0
    shared: int = 1
    """Requests in a row that begin with the same prefix."""
    source: str = ""

    @property
    def prompt_tokens(self) -> float:
        """All prompt tokens of a request."""
        return self.prefix_tokens + self.input_tokens

    @property
    def cached_tokens(self) -> float:
        """Prompt tokens of the whole workload that a prefix cache saves."""
        return self.requests * self.prefix_tokens * (1 - 1 / self.shared)

    @property
    def total_prefix(self) -> float:
        """Prompt tokens of the whole workload that stand in shared prefixes."""
        return self.requests * self.prefix_tokens

    @property
    def total_prompt(self) -> float:
        """Prompt tokens of the whole workload, cached ones included."""
        return self.requests * self.prompt_tokens

    @property
    def total_output(self) -> float:
        """Output tokens of the whole workload."""
        return self.requests * self.output_tokens


@dataclass(frozen=True)
class Estimate:
    """A workload on one machine or provider. Seconds and dollars; None where nothing states a price."""

    workload: Workload
    seconds: tuple[float, float, float]
    """low, likely, high"""
    gpu_hours: float | None = None
    kwh: float | None = None
    usd: tuple[float, float, float] | None = None
    usd_per_hour: float | None = None
    concurrency: int | None = None
    at_most: bool = False
    notes: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    @property
    def hours(self) -> float:
        """The likely time."""
        return self.seconds[1] / 3600


def names() -> tuple[str, ...]:
    """The workloads that are known by name."""
    return tuple(_rows())


def find(word: str) -> Workload:
    """`longmemeval-s`, `IN:OUT:N` (tokens, tokens, requests) or a `.jsonl` file of requests."""
    known = _rows().get(word.strip().lower())
    if known is not None:
        return known
    if re.fullmatch(r"[\d_,.]+:[\d_,.]+:[\d_,.]+", word):
        return _sized(word)
    if word.endswith(".jsonl"):
        from pathlib import Path

        return from_file(Path(word))
    raise UnknownName(
        f"unknown workload {word!r}", suggestions=names(),
        hint=f"known: {', '.join(names())}, IN:OUT:N as 1000:200:5000, or a .jsonl file of requests",
    )  # fmt: skip


def from_file(path: Path) -> Workload:
    """The mean request of a file: one object a line with a prompt, perhaps token counts and max_tokens."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the workload {path}: {error}") from error
    places = {f"{path.name}, line {place}": line for place, line in enumerate(lines, 1) if line.strip()}
    rows = {place: _row(line, place) for place, line in places.items()}
    if not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise InvalidInput(f"{path} holds no requests: one JSON object with a prompt a line is needed")
    sizes = [_sizes(row, place) for place, row in rows.items()]
    prompt, output = sum(size for size, _ in sizes) / len(rows), sum(answer for _, answer in sizes)
    note = f"{path.name}: counts in the file, or {CHARACTERS:g} characters a token"
    return Workload(path.stem, len(rows), prompt, output / len(rows), source=note)


def assess(workload: Workload, model: ModelSpec | str, machine: Machine, *, usd_per_hour: float | None = None,
           concurrency: int | None = None, prefix_cache: bool = True, **layout: Any) -> Estimate:  # fmt: skip
    """Time, GPU-hours, energy and money of a workload on a machine; `layout` is what `predict` takes."""
    from memserve.speed.roofline.forecast import predict

    if not isinstance(model, str) and model.embeds:
        return _read(workload, model, machine, usd_per_hour, layout)
    hit = prefix_cache and workload.shared > 1
    cached = workload.prefix_tokens * (1 - 1 / workload.shared) if hit else 0.0
    flight = concurrency or min(PARALLEL, workload.requests)
    speed = predict(
        model, machine, concurrency=flight, input_tokens=workload.prompt_tokens - cached,
        output_tokens=workload.output_tokens, prefix_tokens=cached, **layout,
    )  # fmt: skip
    rate = speed.output_tokens_per_s
    times = [workload.total_output / value for value in (rate.high, rate.likely, rate.low)]
    tail = speed.ttft_ms.likely / 1e3 if workload.requests > flight else 0.0
    seconds = (times[0] + tail, times[1] + tail, times[2] + tail)
    return replace(
        _taking(workload, machine, seconds, usd_per_hour), concurrency=flight, at_most=speed.at_most,
        notes=speed.notes,
        assumptions=() if concurrency else (Assumption("concurrency", flight, "memserve's choice"),),
    )  # fmt: skip


def _read(workload: Workload, model: ModelSpec, machine: Machine, usd_per_hour: float | None,
          layout: dict[str, Any]) -> Estimate:  # fmt: skip
    """A corpus through an embedder: texts that are read, and nothing written."""
    from memserve.speed.roofline.forecast import texts_per_s

    rate = texts_per_s(model, machine, input_tokens=workload.prompt_tokens, **layout)
    low, likely, high = (workload.requests / value for value in (rate.high, rate.likely, rate.low))
    found = _taking(workload, machine, (low, likely, high), usd_per_hour)
    return replace(found, notes=("embedders were never timed: the range is wide",))


def _taking(workload: Workload, machine: Machine, seconds: tuple[float, float, float],
            usd_per_hour: float | None) -> Estimate:  # fmt: skip
    """What so many seconds of a machine use up."""
    price = usd_per_hour if usd_per_hour is not None else machine.usd_per_hour
    return Estimate(
        workload, seconds, gpu_hours=seconds[1] / 3600 * machine.cards, kwh=_kwh(machine, seconds[1]),
        usd=None if price is None else _each(seconds, price / 3600), usd_per_hour=price,
    )  # fmt: skip


ANSWER_SECONDS, READ_SECONDS = 10.0, 1.0
"""Of a request at a provider, to write an answer and only to read a text, where no limits are said."""


def ask(workload: Workload, price: Price, *, batch: bool = False, requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None, seconds_per_request: float | None = None,
        concurrency: int = 16) -> Estimate:  # fmt: skip
    """Time and money of a workload on a provider; prefixes are cached, unasked or marked.

    The time follows from the caller's limits; without them it rests on two assumptions.
    """
    pace = seconds_per_request or (ANSWER_SECONDS if workload.output_tokens else READ_SECONDS)
    cached = 0.0 if batch else _cached(workload, price)
    written = workload.total_prefix / workload.shared if cached and _marked(price) else 0.0
    usd = price.of_prompt(workload.prompt_tokens).of_tokens(
        workload.total_prompt,
        workload.total_output,
        cached_tokens=cached,
        written_tokens=written,
        batch=batch,
    )
    tokens = workload.total_prompt + workload.total_output
    limits = ((workload.requests, requests_per_minute), (tokens, tokens_per_minute))
    waits = [total / limit * 60 for total, limit in limits if limit is not None]
    assumed = () if waits else _paced(pace, concurrency)
    likely = max(waits, default=workload.requests * pace / concurrency)
    low, high = likely if waits else likely / 3, likely * 3
    return Estimate(
        workload, (low, likely, max(high, A_DAY) if batch else high), usd=(usd, usd, usd),
        concurrency=None if waits else concurrency, notes=tuple(_asked(workload, price, batch)),
        assumptions=assumed,
    )  # fmt: skip


def _paced(seconds: float, concurrency: int) -> tuple[Assumption, ...]:
    why = "providers state no speed: say --rpm and --tpm"
    return (Assumption("seconds_per_request", seconds, why), Assumption("concurrency", concurrency, why))


def _cached(workload: Workload, price: Price) -> float:
    """Prompt tokens at the cache's price: a run marks what requests share where the provider wants marks."""
    least = price.marked_from if price.caches_from is None else price.caches_from
    long_enough = least is not None and workload.prefix_tokens >= least
    return workload.cached_tokens if price.cached is not None and long_enough else 0.0


def _marked(price: Price) -> bool:
    return price.caches_from is None and price.marked_from is not None


def _asked(workload: Workload, price: Price, batch: bool) -> Iterator[str]:
    yield f"{price.source}, {price.date}" if price.date else price.source
    if price.cached is not None and workload.cached_tokens and not batch:
        if not _cached(workload, price):
            yield "no prefix is cached here, so every input token is priced in full"
        elif _marked(price):
            yield "a run marks the shared prefix: written once at the price of a write, then read"
    if batch:
        yield "batch interfaces promise an answer within 24 hours"


def machines_until(estimate: Estimate, seconds: float) -> int:
    """How many such machines, each with its share, finish the workload within a time."""
    if seconds <= 0:
        raise InvalidInput(f"the deadline must lie ahead, not {seconds:g} s")
    return max(1, ceil(estimate.seconds[1] / seconds))


def within_deadline(estimate: Estimate, seconds: float) -> bool | None:
    """True: even the slow end of the range is in time; False: even the fast end is late; None: it may be."""
    if estimate.seconds[2] <= seconds:
        return True
    return None if estimate.seconds[0] <= seconds else False


def within_budget(estimate: Estimate, usd: float) -> bool | None:
    """As `within_deadline`, in dollars; None also where no price is known."""
    if estimate.usd is None:
        return None
    if estimate.usd[2] <= usd:
        return True
    return None if estimate.usd[0] <= usd else False


def affordable_requests(estimate: Estimate, usd: float) -> int | None:
    """How many of the workload's requests a sum of money answers; None without a price."""
    if estimate.usd is None or estimate.usd[1] <= 0:
        return None
    return int(estimate.workload.requests * usd / estimate.usd[1])


@cache
def _rows() -> dict[str, Workload]:
    read = files.table(__file__, "data/workloads.json")["rows"]
    return {row["name"]: Workload(**{k: v for k, v in row.items() if k != "about"}) for row in read}


def _sized(word: str) -> Workload:
    try:
        size, answer, count = (float(part.replace("_", "").replace(",", "")) for part in word.split(":"))
    except ValueError:
        raise InvalidInput(f"not a workload: {word!r}", hint="write IN:OUT:N, as 1000:200:5000") from None
    if count < 1 or count != int(count):
        raise InvalidInput(f"{word!r}: a whole number of requests above zero is needed")
    if size + answer <= 0:
        raise InvalidInput(f"{word!r}: a request of no tokens takes no time")
    for name, tokens in (("input", size), ("output", answer)):
        number(f"the workload's {name}", tokens, most=MOST_TOKENS)
    return Workload(word, int(count), size, answer, source="as asked")


def _row(line: str, where: str) -> Any:
    try:
        return files.parsed(line)
    except ValueError as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise InvalidInput(f"cannot read the workload {where}: {why}") from error


def _sizes(row: dict[str, Any], where: str) -> tuple[float, float]:
    """Prompt and output tokens of a request."""
    output = row.get("output_tokens") or row.get("max_tokens") or DEFAULT_OUTPUT
    return _prompt_tokens(row, where), number(f"{where}: output tokens", output, above=True, most=MOST_TOKENS)


def _prompt_tokens(row: dict[str, Any], where: str) -> float:
    for name in ("input_tokens", "prompt_tokens"):
        if row.get(name) is not None:
            return number(f"{where}: {name}", row[name], most=MOST_TOKENS)
    prompt = next((row[name] for name in ("prompt", "messages", "text", "input") if name in row), None)
    if not isinstance(prompt, (str, list)):
        raise InvalidInput(f"{where}: a prompt is a string, messages or token ids, not {str(prompt)[:40]!r}")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return float(len(prompt))
    return len(prompt if isinstance(prompt, str) else json.dumps(prompt)) / CHARACTERS


def _kwh(machine: Machine, seconds: float) -> float | None:
    watts = machine.card.tdp_watts
    return None if watts is None else watts * machine.cards / 1000 * seconds / 3600


def _each(values: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return (values[0] * factor, values[1] * factor, values[2] * factor)
