"""`memserve models`: the models of the catalogue that a machine holds, the best first, each with its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memserve import files, model
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.answer import Maker, smaller
from memserve.plan.candidate import weight_loss
from memserve.plan.page import Section, Shown
from memserve.plan.plan import Plan, machine_object, model_object
from memserve.plan.query import DEFAULT_CONTEXT, PlanOptions, Query, known_name
from memserve.plan.search.choice import first
from memserve.plan.sections import PLANS, billions, plan_row

if TYPE_CHECKING:
    from typing_extensions import Unpack

TASKS = ("generate", "embed", "rerank")
LEAST_BYTES = 0.25
"""Of a parameter in the smallest weights that any engine loads: larger models are not tried."""
FOUR_BITS = 36
"""The loss of the worst 4-bit weights (losses.json)."""
RANKED_BY = {
    "quality": "published quality, the highest first; figures of one benchmark are compared with each other"
    " alone: MMLU-Pro, then MMLU-Pro by likelihood, then MTEB; models without a figure follow by total"
    " parameters, a rule of thumb, and weights below 4 bits come after all others",
    "throughput": "predicted output tokens (or texts) a second of the whole machine, task by task",
    "latency": "predicted time per output token (or text), task by task",
    "cost": "predicted dollars per million output tokens (or tokens of texts), task by task",
}
"""What `best first` means for each objective."""


class Quality(NamedTuple):
    """A figure that was published of a model, in percent."""

    benchmark: str
    value: float
    source: str


class _Published(NamedTuple):
    """The table of published figures."""

    benchmarks: list[str]
    sources: dict[str, tuple[str, str]]
    models: dict[str, tuple[float, str]]


@cache
def _published() -> _Published:
    found = files.table(model.__file__, "data/quality.json")
    return _Published(found["benchmarks"], found["sources"], found["models"])


def quality(name: str) -> Quality | None:
    """What was published of this very model; a fine-tune has nothing from what it was made of."""
    known, table = _published().models.get(name), _published()
    return Quality(table.sources[known[1]][0], known[0], table.sources[known[1]][1]) if known else None


@dataclass(frozen=True, repr=False)
class Models(Shown):
    """Models, the best first; without a machine, the catalogue by name and no plans."""

    machine: Machine | None
    specs: tuple[ModelSpec, ...]
    plans: tuple[Plan, ...]
    ranked_by: str
    context: int | None = None

    @property
    def fits(self) -> bool:
        """There is a model."""
        return bool(self.specs)

    def to_dict(self) -> dict[str, Any]:
        """Every model with its plan."""
        plans = [plan.bare() for plan in self.plans] if self.plans else [None for _ in self.specs]
        return {
            "schema": 1, "machine": machine_object(self.machine) if self.machine else None,
            "ranked_by": self.ranked_by,
            "models": [
                {"model": {**model_object(spec), "task": task_of(spec), "max_context": spec.max_context},
                 "quality": found._asdict() if (found := quality(spec.id)) else None, "plan": plan}
                for spec, plan in zip(self.specs, plans, strict=True)
            ],
        }  # fmt: skip

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """One line a model."""
        if self.machine is None:
            yield Section(
                f"{len(self.specs)} models are known; --gpus SPEC lists those that fit", style="good"
            )
            yield Section(header=("model", "task", "parameters", "active", "context"),
                          rows=tuple(map(_known, self.specs)))  # fmt: skip
            return
        where = f"{self.machine.cards}x{self.machine.card.name}"
        if not self.plans:
            yield Section(f"no model of the catalogue fits {where}", style="bad")
            return
        yield Section(f"{len(self.plans)} models fit {where}", style="good")
        least = f"; models made for fewer than {self.context} tokens are left out" if self.context else ""
        yield Section(lines=(f"ranked by {self.ranked_by}{least}",), bullets=False)
        rows = [
            (plan.model.id, billions(plan.model.parameters), *_told(plan.model.id), *plan_row(plan))
            for plan in self.plans
        ]
        tasks = [task_of(plan.model) for plan in self.plans]
        whole = self.ranked_by == RANKED_BY["quality"]
        for kind in ("",) if whole else dict.fromkeys(tasks):
            own = tuple(row for row, task in zip(rows, tasks, strict=True) if kind in ("", task))
            yield Section(kind, header=("model", "parameters", "quality", "source", *PLANS), rows=own)
        named = {row[3] for row in rows}
        told = [f"{key}: {source}" for key, (_, source) in _published().sources.items() if key in named]
        if told:
            yield Section("sources of quality", lines=tuple(told))


def models(gpus: str | Machine | None = None, *, task: str | None = None,
           report: Callable[[int, int], None] = lambda _done, _all: None,
           **options: Unpack[PlanOptions]) -> Models:  # fmt: skip
    """The models that a machine holds, the best first; without a machine, every model that is known.

    `report` is told how many of how many models are done.
    """
    from memserve.plan.library import machine_of

    if task is not None:
        known_name("task", task, TASKS)
    query = Query.of(**options)
    specs = [spec for spec in catalogue() if task in (None, task_of(spec))]
    if gpus is None:
        return Models(None, tuple(specs), (), "name")
    machine = machine_of(gpus)
    machine = replace(machine, card=smaller(machine.card, query.headroom))
    plans: list[Plan] = []
    for done, spec in enumerate(specs):
        report(done, len(specs))
        plans += filter(None, (plan_of(spec, machine, query),))
    plans.sort(key=_key(query.objective))
    least = None if task in ("embed", "rerank") else query.context or DEFAULT_CONTEXT
    found = tuple(plan.model for plan in plans)
    return Models(machine, found, tuple(plans), RANKED_BY[query.objective], least)


def catalogue() -> Iterator[ModelSpec]:
    """Every model that is known, without the quantized forms of another that is."""
    from memserve.model import catalogue as rows
    from memserve.model import load

    for row in rows.rows():
        spec = load(row.id)
        if row.base is None or spec.quantization is None or rows.find(row.base) is None:
            yield spec


def task_of(model: ModelSpec) -> str:
    """What a model is for."""
    return "rerank" if model.reranks else "embed" if model.embeds else "generate"


def plan_of(model: ModelSpec, machine: Machine, query: Query) -> Plan | None:
    """The best plan for one model; None where the machine does not hold it."""
    if model.parameters * LEAST_BYTES > machine.cards * machine.card.memory:
        return None
    if query.context is None and query.job is None and task_of(model) == "generate":
        query = replace(query, context=DEFAULT_CONTEXT)
    best = first(model, machine, query)
    return Maker(model, machine, query, ()).plan(best, brief=True) if best else None


def _key(objective: str) -> Any:
    """What plans are sorted by: by figures of one unit, a task after the other; unknown ones come last."""

    def size(plan: Plan) -> tuple[Any, ...]:
        loss = weight_loss(plan.checkpoint)
        small = loss > FOUR_BITS or plan.checkpoint.bits < 4
        found, order = quality(plan.model.id), _published().benchmarks
        figure = (order.index(found.benchmark), -found.value) if found else (len(order), 0.0)
        return small, *figure, -plan.model.parameters, loss, plan.model.id

    def figure(plan: Plan) -> tuple[Any, ...]:
        speed, cost = plan.speed or {}, plan.cost or {}
        texts = speed.get("texts_per_s")
        rate = (texts or speed.get("output_tokens_per_s") or {}).get("likely", 0.0)
        value = {
            "throughput": -rate, "latency": 1 / rate if texts else (speed.get("tpot_ms") or {}).get("likely"),
            "cost": cost.get("usd_per_mtok_input" if texts else "usd_per_mtok_output"),
        }[objective]  # fmt: skip
        return TASKS.index(task_of(plan.model)), value is None, value or 0.0, *size(plan)

    return size if objective == "quality" else figure


def _known(spec: ModelSpec) -> tuple[str, ...]:
    context = "-" if spec.max_context is None else str(spec.max_context)
    return spec.id, task_of(spec), billions(spec.parameters), billions(spec.active_parameters), context


def _told(name: str) -> tuple[str, str]:
    """A figure with its benchmark, and the key of its source."""
    found = quality(name)
    return (f"{found.value:g} {found.benchmark}", _published().models[name][1]) if found else ("-", "-")
