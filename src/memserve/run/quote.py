"""What a job of stages asks and costs, told before it starts; from how many lines on its cards pay."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from memserve import registry
from memserve.cli import counted
from memserve.errors import MemserveError
from memserve.run.limits.budget import price_of
from memserve.run.stages import FIELD, Pipeline, Stage, filled, unasked
from memserve.speed.workloads import CHARACTERS, DEFAULT_OUTPUT

START_HOURS = 0.25
"""Renting, downloading and loading, before the first answer."""
TEMPLATE = 30
"""Tokens of a chat template with its usual system prompt, as SmolLM2's and Qwen2.5's are."""
MANY = 10_000
"""Requests that a rate is worked out for: so many that starting does not show."""


def told(job: Pipeline) -> Iterator[str]:
    """A line for each stage, and one for each break-even; what no stage could ask is refused."""
    first = f"{counted(len(job.seeds), 'seed')}, {len(job.gold)} set apart as gold"
    yield f"{first}, {counted(job.plan.rounds, 'round')}; the first, if every answer goes on:"
    for stage, asked, read in _foreseen(job):
        if not stage.prompt:
            yield f"{stage.name}: a filter, nobody is asked"
            continue
        made = _made(stage)
        who = ":".join(filter(None, (stage.backend, stage.model))) or "the embedded default"
        size = f"{counted(asked, 'request')} of about {read:.0f} + {made} tokens"
        yield f"{stage.name}: {size}, {who}, {_price(stage, asked, read, made)}"
        if stage.gpus and stage.model and not registry.is_own_name(stage.backend, stage.model):
            yield f"{stage.name}: {_cards(stage, read, made)}"
    growth = prod(stage.n for stage in job.plan.stages if not stage.judges)
    if job.plan.rounds > 1 and growth > 1:
        yield f"each further round: up to {growth} times as many as the one before"


def _foreseen(job: Pipeline) -> Iterator[tuple[Stage, int, float]]:
    """Each stage with its requests in the first round and the mean tokens that each reads."""
    lines, each, said = job.seeds, 1, dict[str, float]()
    for stage in job.plan.stages:
        if not stage.prompt:
            lines = lines if said else job.kept(stage, unasked(lines))  # no answer is known before it is made
            yield stage, 0, 0.0
            continue
        answers = sum(said.get(name, 0.0) for name in FIELD.findall(stage.prompt))
        read = (_mean([len(filled(stage, line)) for line in lines]) + answers) / CHARACTERS + TEMPLATE
        yield stage, len(lines) * each * stage.n, read
        new = [stage.name] if stage.judges else [stage.name, "text"]
        said.update(dict.fromkeys(new, _made(stage) * CHARACTERS))
        lines = [{**line, **dict.fromkeys(new, "")} for line in lines]
        each *= 1 if stage.judges else stage.n


def _made(stage: Stage) -> int:
    return int(stage.settings.get("max_tokens") or DEFAULT_OUTPUT)


def _price(stage: Stage, asked: int, read: float, made: int) -> str:
    price = price_of(stage.model, stage.backend, stage.run.get("price"))
    if price is None:
        return "no price by the token"
    batch = bool(stage.run.get("batch")) and price.batch_input is not None
    return f"about ${asked * price.of_prompt(read).of_tokens(read, made, batch=batch):.4f}"


def _cards(stage: Stage, read: float, made: int) -> str:
    """What a request costs on the cards, and from how many on that is less than at the provider."""
    from memserve.plan import compare

    named = [str(stage.gpus), *([stage.instead] if stage.instead else [])]
    try:
        found = compare(stage.model, named, workload=f"{max(1, round(read))}:{made}:{MANY}")
    except MemserveError as error:
        return f"no estimate: {error}"
    here, *there = found.entries
    if here.job is None:
        return f"no estimate for {stage.gpus}: {here.reason or here.what}"
    hours = here.job["hours"]["likely"]
    pace = f"{here.what} on {here.name}: {MANY / hours:,.0f} requests an hour"
    hourly = (here.cost or {}).get("usd_per_hour")
    if not hourly:
        return f"{pace}; no price of these cards is known ({stage.gpus}@DOLLARS says one)"
    own = hourly * hours / MANY
    pace += f", ${hourly:g} an hour, ${own:.5f} each"
    if not there or there[0].job is None or there[0].job["usd"] is None:
        return f'{pace}; instead = "PROVIDER:MODEL" with a known price tells the break-even'
    other = there[0].job["usd"]["likely"] / MANY
    return f"{pace}; {stage.instead} ${other:.5f} each: {_break_even(hourly, own, other)}"


def _break_even(hourly: float, own: float, other: float) -> str:
    """Where both have cost the same: the cards' start is paid once, then each request saves something."""
    if other <= own:
        return "the cards never pay at this pace"
    from_here = START_HOURS * hourly / (other - own)
    return f"the cards pay from {from_here:,.0f} requests on, {START_HOURS * 60:.0f} minutes of starting paid"


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values) if values else 0.0
