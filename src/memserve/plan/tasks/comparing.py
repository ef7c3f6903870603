"""`--compare SPEC ...`: machines and providers beside each other for one workload, time against money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput, UnknownName
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import UNTIMED
from memserve.plan.job import Job
from memserve.plan.page import Section, Shown, show
from memserve.plan.query import PlanOptions, Query
from memserve.plan.sections import assumed, whose
from memserve.plan.tasks.options import asked

if TYPE_CHECKING:
    from argparse import Namespace
    from os import PathLike

    from typing_extensions import Unpack

    from memserve.speed.prices import Price

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
"""What the cards run where no MODEL is named; the answer says so."""
UNPRICED = "no price is known"
COLUMNS = ("", "where", "what", "hours", "$", "kWh", "")


@dataclass(frozen=True)
class Entry:
    """One machine or provider, with its job; `job` is None where nothing fits."""

    name: str
    what: str
    job: Mapping[str, Any] | None
    reason: str = ""
    cost: Mapping[str, Any] | None = None
    """What an hour or a token costs, and whose price that is."""

    @property
    def point(self) -> tuple[float, float] | None:
        """Likely hours and dollars, where both are known."""
        if self.job is None or self.job["usd"] is None:
            return None
        return self.job["hours"]["likely"], self.job["usd"]["likely"]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"name": self.name, "what": self.what, "fits": self.job is not None, "workload": self.job,
                "cost": self.cost, "reason": self.reason or None}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Machines and providers for one workload, in the order they were named."""

    model: str | None
    """None where none was named: the cards run `DEFAULT_MODEL`."""
    workload: str
    requests: int
    entries: tuple[Entry, ...]

    @property
    def fits(self) -> bool:
        """The workload can be run on anything named."""
        return any(found.job for found in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """Every entry with its hours and dollars."""
        return {"schema": 1, "model": self.model or DEFAULT_MODEL, "workload": self.workload,
                "compare": [found.to_dict() for found in self.entries]}  # fmt: skip

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """The table and, below it, the chart."""
        rows = zip(_letters(self.entries), self.entries, strict=True)
        note = "" if self.model else " (no MODEL was named)"
        head = f"{self.workload}: {self.requests:,} requests with {self.model or DEFAULT_MODEL}{note}"
        yield Section(head, COLUMNS, tuple(_row(letter, found) for letter, found in rows))
        yield Section(lines=tuple(chart(self.entries)), as_is=True)


def run(options: Namespace) -> int:
    """Print the table and the chart; 0 if the workload can be run on anything named."""
    named = [] if options.gpus is None or options.gpus in options.compare else [options.gpus]
    found = compare(options.model, (*named, *options.compare), **asked(options))
    if options.plot:
        draw(found, options.plot)
    return show(found, options)


def compare(model: str | PathLike[str] | ModelSpec | None, specs: Sequence[str],
            **options: Unpack[PlanOptions]) -> Comparison:  # fmt: skip
    """A workload on each of some machines (`4xV100`) and providers (`openai:gpt-4o-mini`)."""
    query = Query.of(**options)
    if query.job is None:
        raise InvalidInput("--compare needs a --workload, as locomo or 1000:200:5000")
    if not specs:
        raise InvalidInput("--compare needs a machine or a provider, as 4xV100 or PROVIDER:MODEL")
    entries = tuple(entry(word, model or DEFAULT_MODEL, query, query.job) for word in specs)
    if all(found.what == UNPRICED for found in entries):
        raise UnknownName(f"no price of {entries[0].name[:60]!r} is known", hint=entries[0].reason)
    name = model if isinstance(model, str | None) else str(getattr(model, "id", model))
    workload = query.job.workload
    return Comparison(name, workload.name, workload.requests, entries)


def entry(word: str, model: str | PathLike[str] | ModelSpec, query: Query, job: Job) -> Entry:
    """A model by its token price (`provider:model`), else a machine; `@` gives one's own price."""
    from memserve.plan.search import offers
    from memserve.speed import prices

    name, sign, own = word.partition("@")
    price = prices.of(name)
    if price and ":" not in name:
        name = f"{price.provider}:{name}"
    if ":" in name and query.answer_ms:
        return Entry(name, "nothing fits", None, offers.NO_PROVIDER_SAYS)
    if ":" in name:
        return _provider(name, price, _rates(word, own) if sign else [], job)
    return _machine(word, model, query)


def _rates(word: str, own: str) -> list[float]:
    """Dollars per million tokens in and out of a provider."""
    try:
        rates = [float(part) for part in own.split("/")]
    except ValueError:
        rates = []
    if len(rates) != 2 or not all(0 <= rate < float("inf") for rate in rates):
        raise InvalidInput(f"not a price: {word[:60]!r}", hint="pangu:NAME@0.5/1.5 ($ per Mtok in and out)")
    return rates


def _provider(name: str, price: Price | None, rates: list[float], job: Job) -> Entry:
    from memserve.plan.search.pricing import provider_cost
    from memserve.speed import prices

    backend, _, model = name.partition(":")
    if rates:
        price = prices.Price(model, backend, rates[0], rates[1], source="the price given")
    if price is None:
        near = ", ".join(prices.nearest(name)) or ", ".join(prices.names()[:3])
        return Entry(name, UNPRICED, None, f"add your own as {name[:40]}@IN/OUT, or say {near}")
    if price.most_input and job.workload.prompt_tokens > price.most_input:
        asked = f"{job.workload.prompt_tokens:,.0f} are asked for"
        return Entry(name, "nothing fits", None, f"takes {price.most_input:,} tokens at most, {asked}")
    price = price.of_prompt(job.workload.prompt_tokens)
    return Entry(
        name, f"{price.input:g} / {price.output:g} $ per Mtok", job.by(price), cost=provider_cost(price)
    )


def _machine(spec: str, model: str | PathLike[str] | ModelSpec, query: Query) -> Entry:
    from memserve.plan.library import answered

    job = query.job and replace(query.job, rpm=None, tpm=None, batch=False)
    found = answered(model, spec, replace(query, job=job))
    name = spec.partition("@")[0]
    plan = found.plan
    if plan is None:
        closest = found.closest
        return Entry(name, "nothing fits", None, closest.verdict.reason if closest else "a rule forbids it")
    layout = f"tp {plan.tensor_parallel} pp {plan.pipeline_parallel} dp {plan.data_parallel}"
    return Entry(
        name, f"{plan.backend} {plan.engine_version}, {plan.quantization}, {layout}", plan.workload,
        cost=plan.cost,
    )  # fmt: skip


def chart(entries: Sequence[Entry], width: int = 56, height: int = 12) -> list[str]:
    """Letters by likely time and money, both logarithmic."""
    from math import log

    points = [(letter, found.point) for letter, found in zip(_letters(entries), entries, strict=True)]
    known = [
        (letter, log(max(at[0], 1e-6)), log(max(at[1], 1e-6))) for letter, at in points if at is not None
    ]
    if not known:
        return ["no chart: no price is known for any of them (--json tells which)"]
    grid = [[" "] * width for _ in range(height)]
    for letter, x, y in known:
        column = _place(x, [point[1] for point in known], width)
        grid[height - 1 - _place(y, [point[2] for point in known], height)][column] = letter
    times = [at[0] for _, at in points if at is not None]
    body = ["  |" + "".join(line).rstrip() for line in grid]
    foot = f"  {min(times):.3g} h ... {max(times):.3g} h"
    return ["$ (up) against hours (right), likely values, logarithmic", *body, "  +" + "-" * width, foot]


def draw(comparison: Comparison, file: str) -> None:
    """The chart as a picture, with the ranges."""
    from memserve.plan.plot import check_file, figure

    check_file(file)
    made = figure()
    axes = made.subplots()
    for found in comparison.entries:
        if found.job is None or found.job["usd"] is None:
            continue
        hours, usd = found.job["hours"], found.job["usd"]
        spread = [[abs(each["likely"] - each[side])] for each in (hours, usd) for side in ("low", "high")]
        axes.errorbar(
            [hours["likely"]], [usd["likely"]], xerr=spread[:2], yerr=spread[2:], fmt="o", label=found.name
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("hours")
    axes.set_ylabel("$")
    axes.set_title(comparison.workload)
    if axes.has_data():
        axes.legend(fontsize="small")
    made.savefig(file)


def _letters(entries: Sequence[Entry]) -> list[str]:
    return [chr(ord("A") + place % 26) for place in range(len(entries))]


def _place(value: float, values: list[float], size: int) -> int:
    low, high = min(values), max(values)
    return size // 2 if high == low else round((value - low) / (high - low) * (size - 1))


def _row(letter: str, found: Entry) -> tuple[str, ...]:
    if found.job is None:
        return (letter, found.name, found.what, "-", "-", "-", found.reason[:100])
    job = found.job
    money = "no price known" if job["usd"] is None else _spread(job["usd"])
    power = "-" if job["kwh"] is None else f"{job['kwh']:.3g}"
    return (letter, found.name, found.what, _spread(job["hours"]), money, power, _told(job, found.cost or {}))


def _spread(values: dict[str, float]) -> str:
    low, likely, high = (f"{values[name]:.3g}" for name in ("low", "likely", "high"))
    return likely if low == high else f"{likely} ({low} to {high})"


def _told(job: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    words = {True: "yes", False: "no", None: "perhaps"}
    parts = [UNTIMED] if job["at_most"] else []
    parts += [whose(cost)] if cost.get("usd_per_hour") is not None else []
    parts += [assumed(job)] if not cost.get("usd_per_hour") and job["assumptions"] else []
    parts += job["notes"][1:] if "usd_per_mtok_input" in cost else []
    if "within_deadline" in job:
        parts.append(f"in time: {words[job['within_deadline']]}, {job['machines_for_deadline']} such needed")
    if "within_budget" in job:
        parts.append(f"in budget: {words[job['within_budget']] if job['usd'] else 'no price is known'}")
    return "; ".join(parts)
