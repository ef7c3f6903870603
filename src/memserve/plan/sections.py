"""What the answer says to a person, section by section, before anybody decides how it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.hardware.machine import GIB
from memserve.model.spec import told_away
from memserve.plan import storage
from memserve.plan.candidate import UNTIMED
from memserve.plan.page import Section, bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from memserve.hardware.machine import Rent
    from memserve.plan.answer import Answer
    from memserve.plan.candidate import Candidate
    from memserve.plan.page import Row
    from memserve.plan.plan import Plan

PARTS = ("weights", "kv_cache", "activation", "non_torch", "graphs")
LEGEND = tuple(part.replace("_", " ") for part in PARTS)
MOST_NODES = 2
"""Nodes whose commands a screen shows."""


def of_answer(answer: Answer, *, why: bool, everything: bool) -> Iterator[Section]:
    """The answer, the most important first."""
    chosen = answer.plan or answer.closest
    if chosen is None:
        yield Section(f"{answer.model.id}: nothing can be planned with", style="bad")
    else:
        yield headline(chosen)
        yield from chosen_plan(chosen)
    if answer.remedies:
        yield Section("what would fit", lines=answer.remedies, style="good")
    if answer.trades and answer.plan is not None:
        from memserve.plan.search import choice

        title = "trade-offs: no candidate is better in throughput, latency and cost at once (* the plan)"
        yield Section(title, choice.HEADER, choice.rows(answer.trades, answer.plan.deployment))
    if answer.alternatives:
        shown = (*answer.plans, *answer.alternatives) if everything else answer.alternatives
        yield alternatives(shown, "all that fit, the plan first" if everything else "alternatives")
    if answer.rejected:
        yield rejections(answer.rejected, why=why)


def of_plan(plan: Plan, *, most: int = 100) -> Iterator[Section]:
    """One plan with what else was considered: at most so many reasons and alternatives."""
    yield headline(plan)
    yield from chosen_plan(plan, most=most)
    if plan.alternatives and most:
        yield alternatives(plan.alternatives[: min(most, 5)], "alternatives")
    if plan.rejected:
        yield rejections(plan.rejected, why=False)


def chosen_plan(plan: Plan, *, most: int | None = None) -> Iterator[Section]:
    """The decisions, the memory, what to type, and why."""
    yield Section(rows=tuple(facts(plan)))
    if not plan.remote:
        yield Section("memory per card", lines=tuple(memory(plan)), bullets=False, legend=LEGEND)
    if plan.fits:
        yield from commands(plan, MOST_NODES if most else None)
    said = reasons(plan)
    left = () if most is None or len(said) <= most else (f"... and {len(said) - most} more in plan.reasons",)
    yield Section("why" if plan.fits else "why not", lines=(*said[:most], *left))
    if plan.not_counted:
        lines = tuple(f"--{one.name}: {one.reason}" for one in plan.not_counted)
        yield Section("not counted", lines=lines, style="bad")


def headline(plan: Plan) -> Section:
    """One line: what, where, and whether."""
    style = "good" if plan.fits else "bad"
    if plan.remote:
        return Section(f"{plan.model.id}, served by {plan.backend} over HTTP: {_verdict(plan)}", style=style)
    machine = plan.machine
    nodes = f"{machine.nodes} nodes of " if machine.nodes > 1 else ""
    where = f"{nodes}{machine.cards_per_node}x{machine.card.name} ({machine.card.memory / GIB:.2f} GiB each)"
    count = f"{billions(plan.model.parameters)} parameters"
    size = f", {count}" if plan.model.exact else f", about {count} (estimated)"
    return Section(
        f"{plan.model.id}{size if plan.model.blocks else ''}, on {where}: {_verdict(plan)}", style=style
    )


def _verdict(plan: Plan) -> str:
    """Memory and rules are different news."""
    if plan.fits:
        return "takes no card" if plan.remote else "fits"
    if plan.verdict.missed:
        return "too slow; the closest:"
    refused = plan.rule not in ("", "memory", "concurrency", "context", "headroom")
    return "a rule forbids it; the closest:" if refused else "does not fit; the closest:"


def facts(plan: Plan) -> Iterator[Row]:
    """The decisions, one a row."""
    layout = plan.deployment.layout
    yield "engine", f"{plan.backend} {plan.engine_version}".strip()
    if not plan.remote:
        yield "weights", f"{plan.quantization}: {plan.checkpoint.id}"
        cache = "" if plan.kv_dtype == "auto" else f", KV cache in {plan.kv_dtype}"
        yield "computes in", plan.dtype + cache
        words = f"tensor {layout.tensor} x pipeline {layout.pipeline} x data {layout.data}"
        away = plan.deployment.host_layers
        words += ", whole experts per card" if layout.expert else ""
        yield "layout", words + (f", {told_away(plan.model, away)}" if away else "")
    largest = f" (at most {plan.largest_context})" if plan.largest_context else ""
    yield "context", f"{plan.context} tokens{largest}"
    if plan.footprint is not None:
        each = " in each copy" if layout.data > 1 else ""
        what = "texts" if plan.model.embeds else "requests"
        requests = f"{plan.footprint.max_concurrency:.1f} such {what} at once"
        grows = plan.footprint.max_concurrency and not plan.footprint.kv_tokens
        held = "none set aside" if grows else f"{plan.footprint.kv_tokens} tokens{each}"
        yield "KV cache", f"{held}: {requests}"
    yield from money(plan)
    if plan.fits and not plan.remote and plan.model.blocks:
        yield "storage", storage.sentence(plan)
    said = ", ".join(f"{name} {row['kind']}" for name, row in plan.evidence.items())
    if said:
        yield "rests on", f"{said} (plan.evidence has each source)"


def money(plan: Plan) -> Iterator[Row]:
    """Speed and price, where they are known."""
    if plan.speed:
        yield "speed", pace(plan.speed)
    if plan.workload:
        yield "workload", work(plan.workload)
    cost = plan.cost or {}
    if cost.get("usd_per_hour") is not None:
        kind = "output" if cost["usd_per_mtok_output"] is not None else "input"
        busy = f"{cost[f'usd_per_mtok_{kind}']:.4g} $ per million {kind} tokens when busy"
        yield "price", f"{cost['usd_per_hour']:.2f} $/h, {busy}"
        yield "rented as" if cost["instance"] else "priced by", whose(cost)
    elif cost.get("cny_per_hour") is not None:
        yield "price", f"{cost['cny_per_hour']:.2f} CNY/h: {cost['source']}"
    elif cost.get("usd_per_mtok_input") is not None:
        rates = f"{cost['usd_per_mtok_input']} / {cost['usd_per_mtok_output']}"
        yield "price", f"{rates} $ per million tokens in / out"


def pace(speed: Mapping[str, Any]) -> str:
    """Tokens that are written, or texts that are read."""
    texts = speed["texts_per_s"]
    if texts:
        spread = f"{few(texts['likely'])} texts/s ({few(texts['low'])} to {few(texts['high'])})"
        return f"{spread} of {speed['input_tokens']:.0f} tokens"
    rate, first = speed["output_tokens_per_s"], speed["ttft_ms"]
    never = f"; {UNTIMED}" if speed["at_most"] else ""
    spread = f"{whole(rate['likely'])} tokens/s ({whole(rate['low'])} to {whole(rate['high'])}{never})"
    later = f"at {speed['concurrency']} at once, first token after {first['likely'] / 1000:.2f} s"
    return f"{spread} {later}"


def whole(rate: float) -> str:
    """Without decimals, but never nothing."""
    return f"{rate:.0f}" if rate >= 1 else f"{rate:.2g}"


def billions(number: int) -> str:
    """Parameters, in millions where there are few."""
    return f"{number / 1e9:.2f} B" if number >= 1e7 else f"{number / 1e6:.2f} M"


def few(rate: float) -> str:
    """Three figures, and no exponent of ten."""
    return f"{rate:.3g}" if rate < 1000 else f"{float(f'{rate:.3g}'):,.0f}"


def whose(cost: Mapping[str, Any]) -> str:
    """Whose price it is: an instance's, with its cards, region and date, or the caller's own."""
    if not cost["instance"]:
        return str(cost["source"])
    cards = "1 card" if cost["cards"] == 1 else f"{cost['cards']} cards"
    used = "all" if cost["share"] == 1 else f"{cost['share'] * cost['cards']:.0f}"
    whole = f"{used} of the {cards} of {cost['instance']}"
    where = f"{cost['cloud']} {cost['region']}, {cost['date']}"
    return f"{whole} ({cost['instance_usd_per_hour']:.2f} $/h, {where})"


def part(rent: Rent) -> str:
    """What the cards named are of an instance, for a table's cell."""
    if rent.usd_per_hour is None or rent.instance is None or rent.cards is None or rent.share is None:
        return "-"
    return f"{rent.share * rent.cards:.0f}/{rent.cards} of {rent.instance}"


def work(job: Mapping[str, Any]) -> str:
    """Time, money and the bounds of a workload."""
    hours, usd = job["hours"], job["usd"]
    said = f"{job['name']}: {hours['likely']:.3g} h ({hours['low']:.3g} to {hours['high']:.3g})"
    said += f", {usd['likely']:.2f} $" if usd else ""
    said += f", {job['kwh']:.2f} kWh" if job["kwh"] else ""
    said += f" ({assumed(job)})" if job["assumptions"] else ""
    answers = {True: "within", False: "beyond", None: "perhaps within"}
    if "within_deadline" in job:
        said += f"; {answers[job['within_deadline']]} the deadline"
        many = job["machines_for_deadline"] if job["gpu_hours"] is not None else 1
        said += f" ({many} such machines make it)" * (many > 1)
    if "within_budget" in job:
        kept = f"{answers[job['within_budget']]} the budget"
        said += f"; {kept if usd else 'no price is known: say it, as 1xL4@0.7'}"
    return said


def assumed(job: Mapping[str, Any]) -> str:
    """What a workload's time rests on, and what would replace it."""
    values = ", ".join(f"{one['name'].replace('_', ' ')} {one['value']:g}" for one in job["assumptions"])
    return f"assumed: {values}; {job['assumptions'][0]['source']}"


def memory(plan: Plan) -> Iterator[str]:
    """The card's division, as a bar and as figures."""
    footprint = plan.footprint
    if footprint is None:
        yield "not asked: a rule forbids it first" if plan.rule else "none: the provider's"
        return
    yield bar({part: max(0, getattr(footprint, part)) for part in PARTS}, footprint.total)
    named = (f"{part.replace('_', ' ')} {getattr(footprint, part) / GIB:.2f}" for part in PARTS)
    yield ", ".join(named) + f", free {footprint.free / GIB:.2f} of {footprint.total / GIB:.2f} GiB"
    bounds = plan.error_bars
    if bounds and bounds["kv_cache_tokens"]["high"]:
        kv, tokens = bounds["kv_cache"], bounds["kv_cache_tokens"]
        said = f"{kv['low']:.2f} to {kv['high']:.2f} GiB, {tokens['low']} to {tokens['high']} tokens"
        yield f"nine of ten starts of this kind keep a KV cache of {said}"
    if plan.tight:
        yield plan.tight
    if plan.assumed:
        taken = (f"{one.name} {str(one.value).lower()}" for one in plan.assumed)
        yield "taken for it (plan.assumptions has each source): " + ", ".join(taken)


def commands(plan: Plan, most: int | None = None) -> Iterator[Section]:
    """What to type, in order: the checkpoint's making, the installation, each node's start."""
    from memserve.plan.nodes import steps

    if plan.checkpoint.make:
        yield Section("make the checkpoint", lines=(plan.checkpoint.make,), as_is=True)
    if plan.install:
        yield Section("install", lines=(plan.install,), as_is=True)
    found = steps(plan)
    if plan.command and len(found) < 2:
        yield Section("run", lines=(command(plan.command, plan.env),), as_is=True)
    elif plan.command:
        shown = found if most is None or len(found) <= most else (*found[: most - 1], found[-1])
        for step in shown:
            title = f"run on node {step.node} (NODE_0, ... are addresses)"
            yield Section(title, lines=(command(step.command, step.env),), as_is=True)
        if len(shown) < len(found):
            yield Section(f"... and {len(found) - len(shown)} more before the last: plan.to_dict()['nodes']")


def reasons(plan: Plan) -> tuple[str, ...]:
    """The plan's reasons, without a command that stands above by itself."""
    make = plan.checkpoint.make
    return tuple(one.replace(make, "made as above") if make else one for one in plan.reasons)


def command(words: Sequence[str], env: Mapping[str, str]) -> str:
    """The command with its environment, ready to be pasted."""
    import shlex  # not needed for JSON

    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    return f"{variables} {shlex.join(words)}".strip()


PLANS: Row = ("engine", "weights", "layout", "requests", "tokens/s", "$/Mtok", "checkpoint")


def plan_row(plan: Plan) -> Row:
    """A plan in one row."""
    layout = plan.deployment.layout
    speed, cost = plan.speed or {}, plan.cost or {}
    texts, rate = speed.get("texts_per_s"), speed.get("output_tokens_per_s")
    price = cost.get("usd_per_mtok_input" if texts else "usd_per_mtok_output")
    return (
        f"{plan.backend} {plan.engine_version}".strip(), plan.quantization,
        "-" if plan.remote else f"tp {layout.tensor} pp {layout.pipeline} dp {layout.data}",
        "-" if plan.footprint is None else f"{plan.footprint.max_concurrency * layout.data:.1f}",
        f"{few(texts['likely'])} texts/s" if texts else whole(rate["likely"]) if rate else "-",
        "-" if price is None else f"{price:.4f} in" if texts else f"{price:.2f}",
        "to be made" if plan.checkpoint.make else plan.checkpoint.id,
    )  # fmt: skip


REJECTED: Row = ("engine", "weights", "tp x pp", "reason", "source")


def alternatives(plans: Sequence[Plan], title: str) -> Section:
    """Plans beside each other."""
    return Section(title, PLANS, tuple(plan_row(plan) for plan in plans))


def rejections(rejected: Sequence[Candidate], *, why: bool) -> Section:
    """All of them with --why, else how many and of which engines."""
    if why:
        return Section("rejected", REJECTED, tuple(_grouped(rejected)))
    engines = ", ".join(sorted({candidate.backend for candidate in rejected}))
    many = "1 combination" if len(rejected) == 1 else f"{len(rejected)} combinations"
    were = "was" if len(rejected) == 1 else "were"
    return Section(f"{many} of {engines} {were} rejected: --why tells each reason")


def _grouped(rejected: Iterable[Candidate]) -> Iterator[Row]:
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for one in rejected:
        key = (f"{one.backend} {one.engine_version}", one.quantization, one.reason, one.source)
        layout = one.deployment.layout
        groups.setdefault(key, []).append(f"{layout.tensor}x{layout.pipeline}")
    for (engine, quantization, reason, source), layouts in groups.items():
        yield engine, quantization, ", ".join(dict.fromkeys(layouts)), reason, source
