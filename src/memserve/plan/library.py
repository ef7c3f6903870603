"""The planner as a library: what the command line answers, as values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memserve.engines import installed
from memserve.errors import DoesNotFit, InvalidInput, UnknownName
from memserve.plan.answer import Answer
from memserve.plan.candidate import Candidate
from memserve.plan.plan import Plan
from memserve.plan.query import PlanOptions, Query

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Unpack

    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec


def best(model: str | PathLike[str] | ModelSpec, gpus: str | Machine | None = None,
         **options: Unpack[PlanOptions]) -> Plan:  # fmt: skip
    """The best plan that fits; raises `DoesNotFit` with the nearest miss as `.closest`."""
    found = answered(model, gpus, Query.of(**options))
    if found.plan is None:
        raise DoesNotFit(miss(found), closest=found.closest, hint="; ".join(found.remedies) or None)
    return found.plan


def candidates(model: str | PathLike[str] | ModelSpec, gpus: str | Machine | None = None,
               **options: Unpack[PlanOptions]) -> list[Candidate]:  # fmt: skip
    """Every candidate, those that fit first and best first; each with `fits` and `reason`."""
    from memserve.plan.search.choice import ranked
    from memserve.plan.search.offers import consider

    query = Query.of(**options)
    spec, machine = model_of(model, query.backend, query.like), machine_of(gpus)
    query = query.of_model(spec)
    found = consider(spec, machine, query, thorough=True)
    return [*ranked(found, spec, machine, query), *(one for one in found if not one.fits)]


def answered(model: str | PathLike[str] | ModelSpec, gpus: str | Machine | None, query: Query, *,
             everything: bool = False) -> Answer:  # fmt: skip
    """The whole answer, its rejections included."""
    from memserve.plan.answer import answer, answer_in_part

    spec, machine = model_of(model, query.backend, query.like), machine_of(gpus)
    spec = spec if gpus is None else on_cards(spec, query.backend)
    if not query.headroom:
        return answer(spec, machine, query, everything=everything)
    return answer_in_part(spec, machine, query, query.headroom, everything=everything)


def model_of(model: str | PathLike[str] | ModelSpec, backend: str | None = None,
             like: str | None = None) -> ModelSpec:  # fmt: skip
    """A spec as it is, the one of that name or path, with the shapes `like` another's, or a provider's."""
    from memserve.model import load
    from memserve.model.catalogue import find
    from memserve.model.source import readable
    from memserve.model.spec import ModelSpec

    if like is not None:
        if isinstance(model, str) and (row := find(model)) is not None:
            raise InvalidInput(f"{model} is known as {row.id}: --like is for a model that is not")
        from memserve.speed import prices

        if str(model) in {name for one in prices.names() for name in (one, one.partition(":")[2])}:
            raise InvalidInput(f"{model} is its provider's: --like is for weights that one has")
        known, name = load(like), model.id if isinstance(model, ModelSpec) else str(model)
        readable(name)
        note = f"taken to have the shapes of {known.id}, as --like says"
        return replace(known, id=name, exact=False, source=f"--like {like}", notes=(*known.notes, note))
    if isinstance(model, ModelSpec):
        return model
    try:
        return load(model)
    except UnknownName:
        from memserve.plan.search.pricing import hosted

        spec = hosted(str(model), backend)
        if spec is None:
            raise
        return spec


def on_cards(spec: ModelSpec, backend: str | None) -> ModelSpec:
    """What a provider's name means among the weights; what is known by a price alone is refused."""
    from memserve import registry
    from memserve.model import load
    from memserve.model.catalogue import find
    from memserve.plan.search.pricing import price

    local = not spec.blocks and installed.plans_locally(backend)
    sold = price(spec.id, None) if local else None
    if sold is None or sold.provider in registry.names():
        return spec
    if (known := find(spec.id.rpartition("/")[2].partition(":")[0])) is not None:
        return load(known.id)
    raise UnknownName(
        f"{spec.id[:60]} is known here by {sold.provider}'s price alone, not by its sizes",
        hint="for cards name its weights: OWNER/NAME on the hub or a folder with its config.json; without"
        " --gpus it is planned at the provider",
    )


def machine_of(gpus: str | Machine | None) -> Machine:
    """A machine as it is, the one that a spec names, or the one at hand."""
    from memserve.hardware.machine import Machine

    if isinstance(gpus, Machine):
        return gpus
    if gpus is None:
        from memserve.hardware import detect

        return detect()
    if not isinstance(gpus, str):
        raise InvalidInput(f"gpus must be a spec such as '4xV100', not {type(gpus).__name__}")
    from memserve.hardware.spec import in_nodes

    return in_nodes(gpus)


def miss(found: Answer) -> str:
    """One line for a caller whose query nothing answers."""
    name = f"{found.model.id} on {found.machine.cards}x{found.machine.card.name}"
    if found.closest is None:
        return f"nothing fits {name}: no backend can be planned with"
    closest = found.closest
    words = f"{closest.backend} {closest.engine_version} {closest.quantization}".replace("  ", " ")
    return f"nothing fits {name}; closest: {words}, {closest.reason}"
