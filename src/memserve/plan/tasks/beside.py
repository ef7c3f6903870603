"""`--beside MODEL`: a second generator on the other half of the cards; both planned and emitted together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.install import VISIBLE
from memserve.errors import DoesNotFit, InvalidInput
from memserve.hardware.machine import Machine
from memserve.plan.answer import Answer
from memserve.plan.page import Section, Shown, show
from memserve.plan.plan import Plan
from memserve.plan.query import PlanOptions, Query
from memserve.plan.tasks.options import asked

if TYPE_CHECKING:
    from argparse import Namespace
    from os import PathLike

    from typing_extensions import Unpack

    from memserve.model.spec import ModelSpec

PORT = 8001
"""The second server's, so that both can run on one machine."""


@dataclass(frozen=True, repr=False)
class Halves(Shown):
    """Two generators, each on half of the cards: the first on the first ones."""

    first: Answer
    second: Answer
    cards: int
    """Of each."""

    @property
    def fits(self) -> bool:
        """Both run at once."""
        return all(one.plan for one in (self.first, self.second))

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Both, each on its own cards and its own port."""
        return self.placed((0, PORT))

    def placed(self, ports: tuple[int, int]) -> tuple[Plan, ...]:
        """Both on their own cards, and on these ports; 0: the engine's own."""
        found = enumerate(one.plan for one in (self.first, self.second))
        return tuple(placed(plan, at * self.cards, self.cards, ports[at]) for at, plan in found if plan)

    def to_dict(self) -> dict[str, Any]:
        """The first one's answer, with the second's beside it."""
        first, second = self.first.to_dict(), self.second.to_dict()
        if self.fits:
            first["plan"], second["plan"] = (plan.bare() for plan in self.plans)
        return {**first, "fits": self.fits, "beside": second}

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """Both, for a person."""
        if not self.fits:
            for one in (self.first, self.second):
                yield from one.sections(why=why, everything=everything)
            return
        for at, plan in enumerate(self.plans):
            first, last = at * self.cards, (at + 1) * self.cards - 1
            yield Section(f"cards {first} to {last}" if last > first else f"card {first}", style="good")
            yield from plan.sections()


def run(options: Namespace) -> int:
    """Plan both and print them, or the file that starts both; 0 if both fit."""
    found = beside(options.model, options.beside, options.gpus, **asked(options))
    if options.emit is None:
        return show(found, options)
    from memserve.plan import emit

    emit.check(options.emit)
    if not found.fits:
        raise DoesNotFit("one of them does not fit: leave --emit out to see why")
    print(emit.emit_all(found.placed((0, 0)), options.emit, bind=options.bind), end="")
    return 0


def beside(
    first: str | PathLike[str] | ModelSpec, second: str | PathLike[str] | ModelSpec,
    gpus: str | Machine | None = None, **options: Unpack[PlanOptions],
) -> Halves:  # fmt: skip
    """Two generators on one machine, planned as the options say."""
    from memserve.plan.library import answered, machine_of, model_of

    query, machine = Query.of(**options), machine_of(gpus)
    if machine.nodes > 1 or machine.cards_per_node < 2 or machine.card.vendor not in VISIBLE:
        raise InvalidInput("--beside shares the cards of one machine: it needs two or more, as --gpus 8xA100")
    half = replace(machine, cards_per_node=machine.cards_per_node // 2)
    each = [answered(model_of(one, query.backend, query.like), half, query) for one in (first, second)]
    return Halves(each[0], each[1], half.cards_per_node)


def placed(plan: Plan, begin: int, cards: int, port: int) -> Plan:
    """The plan's launch on cards from `begin` on, and on that port."""
    if plan.launch is None:
        return plan
    taken = min(cards, plan.deployment.layout.cards)
    visible = {VISIBLE[plan.machine.card.vendor]: ",".join(str(begin + at) for at in range(taken))}
    server = server_of(installed.named(plan.backend))
    said = (server.program.port, str(port)) if port and server and not server.program.configured else ()
    env = {**plan.launch.env, **visible}
    return replace(plan, launch=replace(plan.launch, env=env, command=(*plan.launch.command, *said)))
