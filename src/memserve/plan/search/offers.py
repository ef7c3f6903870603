"""Every combination of engine, release, quantization and layout, judged by rules and then by memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from memserve.engines import installed
from memserve.engines.backend import Plannable
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.rules.judge import Judge, Refusal, offered
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import (
    BELOW_4_BIT,
    KV,
    WEIGHTS,
    Candidate,
    Checkpoint,
    Judged,
    Verdict,
    loaded,
    steps,
    weight_loss,
)
from memserve.plan.query import Query
from memserve.plan.search import pricing
from memserve.plan.search.checkpoints import checkpoints, known_methods
from memserve.plan.search.judging import fitted, offloaded, refused

MOST_TENSOR = 64


def layouts(serves: Mapping[str, Any], machine: Machine, query: Query) -> list[Layout]:
    """Layouts, the smallest copies of the model first; `serves` is what the engine can do."""
    if serves.get("layers_over_cards"):
        return list(_by_layers(machine, query))
    found = {
        Layout(tensor=tensor, pipeline=pipeline, data=_copies(serves, machine, query, tensor * pipeline))
        for tensor in _tensors(machine, query)
        for pipeline in _pipelines(serves, machine, query, tensor)
    }
    return sorted(found, key=lambda layout: (layout.tensor * layout.pipeline, layout.pipeline))


def _by_layers(machine: Machine, query: Query) -> Iterator[Layout]:
    asked = query.pipeline_parallel
    stages = (asked,) if asked else range(1, machine.cards_per_node + 1)
    for pipeline in stages:
        yield Layout(tensor=query.tensor_parallel or 1, pipeline=pipeline, data=query.data_parallel or 1)


def _tensors(machine: Machine, query: Query) -> list[int]:
    if query.tensor_parallel:
        return [query.tensor_parallel]
    most = min(machine.cards_per_node, MOST_TENSOR)
    powers = [1 << n for n in range(most.bit_length()) if 1 << n <= most]
    divisors = [n for n in range(1, most + 1) if machine.cards_per_node % n == 0]
    return sorted({*powers, *divisors})


def _pipelines(serves: Mapping[str, Any], machine: Machine, query: Query, tensor: int) -> set[int]:
    if query.pipeline_parallel:
        return {query.pipeline_parallel}
    if not serves.get("pipeline") or tensor > machine.cards_per_node:
        return {1}
    fill = machine.cards_per_node // tensor
    return {1, fill, *((machine.nodes, machine.nodes * fill) if machine.nodes > 1 else ())}


def _copies(serves: Mapping[str, Any], machine: Machine, query: Query, cards: int) -> int:
    """Copies of the model that a node's cards hold beside each other, where the layout was left open."""
    if query.data_parallel:
        return query.data_parallel
    if not serves.get("data") or cards > machine.cards_per_node:
        return 1
    return machine.cards_per_node // cards


DTYPES = {
    "bfloat16": ("bfloat16", "float16", "float32"),
    "float16": ("float16", "bfloat16"),
    "float32": ("bfloat16", "float16"),
}
"""What to compute in, by the dtype of the checkpoint: the first that the rules allow."""
EXOTIC = frozenset({"nvfp4", "mxfp4", "w4a8", "gguf-mxfp4"})
"""Planned only where a checkpoint is known, when asked for, or where nothing else runs well."""
AMPLE = 4
"""Times the requests asked for that one node of several should hold at once."""
HARDLY_MORE = 2
"""Requests of the whole context: 16-bit weights that hold fewer do not stand before 8-bit ones."""
EXPERT_CHECKS = frozenset({"groups", "blocks"})
"""Refusals that whole experts per card may avoid."""


def consider(model: ModelSpec, machine: Machine, query: Query, *, thorough: bool = False) -> list[Candidate]:
    """All candidates of the backends that were asked for, in no order.

    Unless `thorough`, pipeline stages are left out where a layout without them holds.
    """
    found: list[Candidate] = []
    if not model.blocks or not installed.plans_locally(query.backend):
        from memserve.plan.search import pricing

        return [on_time(one, model, machine, query) for one in pricing.candidates(model, query)]
    for name in installed.asked(query.backend, query.engine_version):
        found += of_backend(name, installed.named(name), model, machine, query, thorough=thorough)
    return [on_time(one, model, machine, query) for one in found] if query.answer_ms else found


NO_PROVIDER_SAYS = "no provider states how fast it answers: --ttft and --tpot hold on cards of one's own"


def on_time(one: Candidate, model: ModelSpec, machine: Machine, query: Query) -> Candidate:
    """A candidate that fits, refused where it is predicted to answer too late."""
    if not one.fits or not query.answer_ms:
        return one
    if one.remote:
        verdict = Verdict("refused", "untimed", NO_PROVIDER_SAYS, "memserve's list of prices", missed=inf)
        return replace(one, verdict=verdict)
    missed = late(one, model, machine, query)
    if not missed:
        return one
    share = {name: taken / query.answer_ms[name] for name, taken in missed.items()}
    why = "; ".join(
        f"{'the first token' if name == 'ttft' else 'each further token'} takes {taken:.4g} ms"
        f" and {query.answer_ms[name]:g} are wanted" for name, taken in missed.items()
    )  # fmt: skip
    verdict = replace(one.verdict, outcome="refused", rule=max(share, key=share.__getitem__), reason=why)
    return replace(one, verdict=replace(verdict, source="memserve's speed model", missed=max(share.values())))


def late(one: Judged, model: ModelSpec, machine: Machine, query: Query) -> dict[str, float]:
    """The targets that it is predicted to miss, each with the milliseconds that it takes."""
    told = pricing.speed(loaded(model, one.checkpoint), machine, one, one.concurrency, query.job)
    taken = {name: getattr(told, f"{name}_ms").likely for name in query.answer_ms}
    return {name: ms for name, ms in taken.items() if ms > query.answer_ms[name]}


def unoffered(model: ModelSpec, machine: Machine, query: Query, quantization: str) -> Iterator[Candidate]:
    """A quantization on the backends that take it only when asked for it."""
    asked = replace(query, quantization=quantization)
    for name in installed.asked(query.backend, query.engine_version):
        backend = installed.named(name)
        if quantization not in backend.rules["quantizations"]:
            for one in of_backend(name, backend, model, machine, asked):
                yield on_time(one, model, machine, asked)


def of_backend(name: str, backend: Plannable, model: ModelSpec, machine: Machine, query: Query, *,
            thorough: bool = False, behind: Callable[[str, Checkpoint], bool] | None = None,
            ) -> Iterator[Candidate]:  # fmt: skip
    """One engine's candidates: its newest release that knows the card, and what was refused on the way.

    Checkpoints that are `behind` are not judged: the caller has better.
    """
    for version in versions(backend.rules, query):
        offer = Offer(name, backend, version, model, machine, query, thorough=thorough)
        yield from offer.candidates(behind)
        if offer.card is None:
            return


def versions(rules: Mapping[str, Any], query: Query) -> Sequence[str]:
    """The release that was asked for, else those that the planner may pin, newest first."""
    if query.engine_version is not None:
        return (query.engine_version,)
    return [str(row["version"]) for row in offered(rules)]


def squeezed(candidate: Judged, machine: Machine) -> bool:
    """Whether several nodes may offer better: stages, or one copy on a whole node that holds little."""
    footprint, layout = candidate.footprint, candidate.deployment.layout
    if machine.nodes == 1 or footprint is None or _layered(candidate):
        return False
    little = footprint.max_concurrency < AMPLE * candidate.deployment.concurrency
    free = machine.cards_per_node - layout.tensor
    return free >= 0 and (layout.pipeline > 1 or (free == 0 and little))


def _layered(candidate: Judged) -> bool:
    """Whether its engine spreads layers over cards."""
    return bool(installed.named(candidate.backend).rules.get("serves", {}).get("layers_over_cards"))


def cramped(candidate: Judged, machine: Machine) -> bool:
    """It runs, but barely: in stages, without graphs, in float32, or 16 bits with hardly one request."""
    footprint, deployment = candidate.footprint, candidate.deployment
    if squeezed(candidate, machine):
        return True
    staged = deployment.layout.pipeline > 1 and not _layered(candidate)
    if deployment.eager or deployment.dtype == "float32" or staged:
        return True
    if footprint is None or not footprint.kv_cache or candidate.quantization != "none":
        return False
    return footprint.max_concurrency * deployment.layout.data < HARDLY_MORE


class Offer:
    """One release of one engine on one machine."""

    def __init__(self, name: str, backend: Plannable, version: str, model: ModelSpec, machine: Machine,
                 query: Query, *, thorough: bool) -> None:  # fmt: skip
        self.name, self.backend, self.version, self.thorough = name, backend, version, thorough
        self.model, self.machine, self.query = model, machine, query
        self.judge = Judge(backend.rules, version, model, machine)
        self.card = self.judge.card() or self.unasked()
        serves = dict(backend.rules.get("serves", {}))
        if self.judge.known["experts"]:
            serves["data"] = False
        self.layouts, self.by_layers = layouts(serves, machine, query), bool(serves.get("layers_over_cards"))
        self.dtypes: Mapping[str, Sequence[str]] = backend.rules.get("dtypes", DTYPES)
        self.reached = BELOW_4_BIT
        """The fewest steps below 16 bits (losses.json) of what is known to run well."""

    def unasked(self) -> Refusal | None:
        """On some makers' cards an engine is planned only where it is named: others do better."""
        rules, card = self.backend.rules, self.machine.card
        if self.query.backend == self.name or card.vendor not in rules.get("on_request", ()):
            return None
        reason = f"{rules['engine']} on {card.name} is planned when asked for: --backend {self.name}"
        return Refusal("on-request", reason, "memserve's order of engines")

    def candidates(self, behind: Callable[[str, Checkpoint], bool] | None = None) -> Iterator[Candidate]:
        """Each quantization over each layout."""
        for quantization in self.quantizations():
            if behind and behind(self.name, Checkpoint("", quantization, bits=8)):
                continue
            found = self.checkpoints(quantization)
            for checkpoint in found:
                if behind is None or not behind(self.name, checkpoint):
                    yield from self.spread(checkpoint)
            if not found and self.query.quantization:
                yield from self.nothing_to_load(quantization)

    def nothing_to_load(self, quantization: str) -> Iterator[Candidate]:
        """An asked-for quantization of which no checkpoint and no recipe is known."""
        reason = f"no {quantization} checkpoint of {self.model.id} is known, nor how to make one"
        near = [known for known in WEIGHTS if known.endswith(quantization) and known != quantization]
        reason += f": did you mean {' or '.join(near)}?" if near else ""
        refusal = Refusal("no-checkpoint", reason, "memserve's catalogue")
        asked = Checkpoint(self.model.id, quantization)
        return self.all_refused(asked, self.model.dtype, self.card or refusal)

    def quantizations(self) -> Sequence[str]:
        """What the backend offers, what the checkpoint is stored in, or what was asked for."""
        stored = self.model.quantization
        asked = self.query.quantization
        if asked is not None:
            return (asked,)
        words = (str(word) for word in self.backend.rules["quantizations"])
        offers = [word for word in words if steps(WEIGHTS.get(word, 0), "auto") < BELOW_4_BIT]
        if stored is None:
            return offers
        others = [method for method in known_methods(self.model) if method in offers]
        levels = (level for level in self.model.levels if level in offers)
        return tuple(dict.fromkeys((stored.method, *levels, *others)))

    def checkpoints(self, quantization: str) -> list[Checkpoint]:
        """What can be loaded; formats that nobody makes at home count only where a checkpoint is known."""
        online = quantization in self.backend.rules.get("online", ())
        found = checkpoints(self.model, quantization, online=online, vendor=self.machine.card.vendor)
        exotic = quantization in EXOTIC and self.query.quantization is None and self.reached < BELOW_4_BIT
        return [one for one in found if not (exotic and one.make)]

    def spread(self, checkpoint: Checkpoint) -> Iterator[Candidate]:
        """One checkpoint over the layouts, in the first dtype that the rules allow."""
        model = loaded(self.model, checkpoint)
        same = model is self.model
        judge = self.judge if same else Judge(self.judge.rules, self.version, model, self.machine)
        dtypes = self.dtypes.get(model.dtype, self.dtypes["bfloat16"])
        for dtype in dtypes:
            refusal = self.card or judge.dtype(self.deployment(checkpoint, dtype, self.layouts[0]))
            if refusal is None:
                yield from self.laid_out(judge, model, checkpoint, dtype)
                return
            if self.card or checkpoint.quantization == "none" or dtype == dtypes[-1]:
                yield from self.all_refused(checkpoint, dtype, refusal)
            if self.card:
                return

    def laid_out(self, judge: Judge, model: ModelSpec, checkpoint: Checkpoint,
                 dtype: str) -> Iterator[Candidate]:  # fmt: skip
        """Each layout; then with an 8-bit KV cache those that memory forbids, where that can matter."""
        first = self.deployment(checkpoint, dtype, self.layouts[0])
        found = list(self.over_layouts(judge, model, checkpoint, first, self.layouts))
        yield from found
        narrow = self.narrow_kv(checkpoint)
        tight = [one.deployment.layout for one in found if self.tight(one)]
        if narrow and tight and not any(one.fits and not cramped(one, self.machine) for one in found):
            first = replace(first, kv_dtype=narrow)
            found = list(self.over_layouts(judge, model, checkpoint, first, tight))
            yield from (one for one in found if one.outcome != "refused")

    def over_layouts(self, judge: Judge, model: ModelSpec, checkpoint: Checkpoint, first: Deployment,
                     spread: Sequence[Layout]) -> Iterator[Candidate]:  # fmt: skip
        """Each layout; stages are judged only where nothing without them holds, or when asked for."""
        plain = [one for one in spread if one.pipeline == 1]
        staged = [one for one in spread if one.pipeline > 1]
        fits = False
        for layout in (*plain, *staged):
            if layout.pipeline > 1 and fits and plain and not self.thorough:
                return
            candidate = self.judged(judge, model, checkpoint, replace(first, layout=layout))
            held = candidate.fits and not candidate.deployment.host_layers
            barely = cramped if self.by_layers else squeezed
            fits = fits or (held and not barely(candidate, self.machine))
            if candidate.fits and not cramped(candidate, self.machine) and not checkpoint.make:
                self.reached = min(self.reached, steps(weight_loss(checkpoint), candidate.kv_dtype))
            yield candidate

    def narrow_kv(self, checkpoint: Checkpoint) -> str | None:
        """The engine's 8-bit KV cache, where the choice was left open and nothing better is known to run."""
        words = self.backend.rules.get("kv_dtypes", ())
        found = next((word for word in words if KV.get(word) == 1), None)
        if self.query.kv_dtype or found is None:
            return None
        return found if steps(weight_loss(checkpoint), found) <= self.reached else None

    def tight(self, candidate: Candidate) -> bool:
        """Whether memory forbids it, or hardly allows it, though the weights alone are held."""
        footprint = candidate.footprint
        held = footprint is not None and footprint.weights < footprint.total
        return held and (not candidate.fits or cramped(candidate, self.machine))

    def all_refused(self, checkpoint: Checkpoint, dtype: str, refusal: Refusal) -> Iterator[Candidate]:
        """Every layout of a checkpoint that a rule forbids whatever the layout."""
        for layout in self.layouts:
            yield Candidate(self.deployment(checkpoint, dtype, layout), refused(refusal), checkpoint)

    def judged(self, judge: Judge, model: ModelSpec, checkpoint: Checkpoint,
               deployment: Deployment) -> Candidate:  # fmt: skip
        """Rules, then memory."""
        refusal = self.stored_otherwise(deployment, checkpoint) or judge(deployment)
        whole = bool(judge.known["experts"] and self.backend.rules["serves"].get("experts"))
        if refusal is not None and refusal.check in EXPERT_CHECKS and whole:
            apart = replace(deployment, layout=replace(deployment.layout, expert=True))
            if judge(apart) is None:
                refusal, deployment = None, apart
        if refusal is not None:
            return Candidate(deployment, refused(refusal), checkpoint)
        best, verdict = fitted(self.backend, model, self.machine, deployment)
        on = self.backend.rules["serves"].get("host_layers", ())
        if self.query.offload and not verdict.fits and self.machine.card.vendor in on and not model.embeds:
            best, verdict = offloaded(self.backend, model, self.machine, deployment)
        return Candidate(best, verdict, checkpoint)

    def stored_otherwise(self, deployment: Deployment, checkpoint: Checkpoint) -> Refusal | None:
        """A checkpoint that is stored quantized cannot be held as something else."""
        stored = self.model.quantization
        held = dict.fromkeys((stored.method, *self.model.levels)) if stored else ()
        if stored is None or deployment.quantization in held or checkpoint.id != self.model.id:
            return None
        _, _, level = deployment.quantization.partition("gguf-")
        file = (
            f"the file, as {self.model.id}:{level.upper()}, or " if level and "gguf" in stored.method else ""
        )
        reason = f"{self.model.id} is stored as {' or '.join(held)}: name {file}the 16-bit model to plan"
        source = self.model.source or "the checkpoint's config.json"
        return Refusal("stored-quantization", f"{reason} {deployment.quantization}", source)

    def deployment(self, checkpoint: Checkpoint, dtype: str, layout: Layout) -> Deployment:
        """The first form of a deployment, before memory asks for concessions."""
        query = self.query
        return Deployment(
            backend=self.name, engine_version=self.version, quantization=checkpoint.quantization,
            dtype=dtype, kv_dtype=query.kv_dtype or "auto", layout=layout,
            context=pricing.context_of(self.model, query), concurrency=query.concurrency,
            options=(("online", "true"),) if checkpoint.online else (),
        )  # fmt: skip
