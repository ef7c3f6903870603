"""`--train`: what one card needs to train a model, and whether the machine has it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, cast

from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB
from memserve.memory.training import TrainingNeed, for_machine, refusals
from memserve.model.spec import ModelSpec
from memserve.plan.page import Section, Shown, bar
from memserve.plan.plan import machine_object, model_object
from memserve.plan.query import known_name
from memserve.plan.search.reasons import larger, spelled

if TYPE_CHECKING:
    from argparse import Namespace
    from os import PathLike

    from typing_extensions import Unpack

    from memserve.hardware.machine import Card, Machine

METHODS = ("full", "lora", "qlora")
WORDS = {
    "optimizer": str, "precision": str, "zero": int, "batch": int, "sequence": int, "lora_rank": int,
    "rank": int, "checkpointing": bool, "lora_targets": tuple,
}  # fmt: skip
TRUTHS = {
    "true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
PARTS = ("weights", "gradients", "optimizer_states", "activations", "logits", "buffers", "workspace")
LEGEND = tuple(part.replace("_", " ") for part in PARTS[:-1])


COUNTS = (1, 2, 4, 8, 16)
"""Cards that `--gpus any` tries."""
MFU = 0.3
"""Share of a card's rate that a step is taken to reach: an assumption, said beside what follows from it."""
HEADER = ("machine", "GiB needed", "of", "sharding", "recompute", "$/h")


class TrainOptions(TypedDict, total=False):
    """How a model is trained."""

    method: str
    """`full` (the default), `lora` or `qlora`."""
    optimizer: str
    """`adamw` (the default), `adamw8bit`, `sgd`, `adafactor`, ..."""
    precision: str
    """`bfloat16` (the default: weights and moments), `mixed` (float32 masters), `float32` or `float16`."""
    zero: int | None
    """The ZeRO stage, 0 to 3; by default the least that fits."""
    batch: int
    """Sequences of one card in one step."""
    sequence: int
    """Tokens of one sequence."""
    checkpointing: bool
    """Whether activations are computed again instead of kept."""
    lora_rank: int
    """Columns of an adapter."""
    lora_targets: tuple[str, ...] | None
    """Names of the layers that get an adapter; by default every linear layer."""


@dataclass(frozen=True, repr=False)
class Training(Shown):
    """What training needs of each card of a machine."""

    model: ModelSpec
    machine: Machine
    need: TrainingNeed
    asked: TrainOptions = field(default_factory=TrainOptions)

    @property
    def fits(self) -> bool:
        """Every card holds its share, and has the kernels."""
        return self.need.held_by(self.machine.card.memory)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Changes of the question that were tried and fit, the least first."""
        return () if self.fits else tuple(remedies(self.model, self.machine, self.asked))

    @property
    def tokens_per_s(self) -> float | None:
        """Of all cards, where the rate for this precision is known: a matrix takes 2 operations each way."""
        rates, need = self.machine.card.flops, self.need
        name = "bfloat16" if need.precision == "mixed" else need.precision
        passes = 6 - 2 * (need.method != "full") + 2 * need.checkpointing
        rate = rates.get(name, rates.get("float32")) if need.precision != "float32" else rates.get("float32")
        return rate and self.machine.cards * rate * MFU / (passes * self.model.active_parameters)

    def to_dict(self) -> dict[str, Any]:
        """The answer in the shape of a plan's."""
        need = need_object(self.need, self.machine.card.memory)
        return {
            "schema": 1, "model": model_object(self.model), "machine": machine_object(self.machine),
            "fits": self.fits, "plan": need if self.fits else None, "closest": None if self.fits else need,
            "tokens_per_s": self.tokens_per_s, "usd_per_mtok": self.usd_per_mtok,
            "alternatives": [], "rejected": [], "remedies": list(self.remedies),
        }  # fmt: skip

    @property
    def usd_per_mtok(self) -> float | None:
        """Dollars for a million tokens that are trained on, where an hour's price is known."""
        rate, price = self.tokens_per_s, _rent(self)
        return price / 3600 / rate * 1e6 if rate and price is not None else None

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """The need for a person."""
        where, speed = f"{self.machine.cards}x{self.machine.card.name}", ""
        if self.fits and self.tokens_per_s:
            price = "" if self.usd_per_mtok is None else f", {self.usd_per_mtok:.3g} $ per million"
            speed = f"{self.tokens_per_s:,.0f} tokens/s{price} (assumed: {MFU:.0%} of the cards' rate)"
        yield from sections(f"{self.model.id} on {where}", self.need, self.machine.card.memory, speed)
        if told := self.remedies:
            yield Section("what would fit", lines=told, style="good")


@dataclass(frozen=True, repr=False)
class Machines(Shown):
    """The smallest machine of each card that trains a model, the cheapest first."""

    model: ModelSpec
    rows: tuple[Training, ...]

    @property
    def fits(self) -> bool:
        """Some machine does."""
        return bool(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Each machine with its need."""
        machines = [
            {"machine": machine_object(row.machine), "plan": need_object(row.need, row.machine.card.memory),
             "usd_per_hour": _rent(row)}
            for row in self.rows
        ]  # fmt: skip
        return {
            "schema": 1, "model": model_object(self.model), "fits": self.fits, "machines": machines,
            "plan": machines[0]["plan"] if machines else None, "closest": None,
            "alternatives": [], "rejected": [],
        }  # fmt: skip

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """The table for a person."""
        if not self.rows:
            most = f"no single node of up to {COUNTS[-1]} cards trains {self.model.id}"
            yield Section(most, lines=("try qlora, checkpointing or a smaller batch",), style="bad")
            return
        yield Section(f"the smallest machine of each card that trains {self.model.id}", style="good")
        yield Section(header=HEADER, rows=tuple(_cells(row) for row in self.rows))


def run(options: Namespace) -> int:
    """Answer a training question; 0 if it fits, 1 if not."""
    from memserve.plan.library import model_of
    from memserve.plan.page import show
    from memserve.plan.tasks.options import any_machine

    asked, model = read(options.train), model_of(options.model, like=options.like)
    found = anywhere(model, **asked) if any_machine(options) else None
    return show(found or train(model, options.gpus, **asked), options)


def train(model: str | PathLike[str] | ModelSpec, gpus: str | Machine | None = None,
          **options: Unpack[TrainOptions]) -> Training:  # fmt: skip
    """What training a model needs of each card of a machine."""
    from memserve.plan.library import machine_of, model_of, on_cards

    spec, machine = on_cards(model_of(model), None), machine_of(gpus)
    for name in options:
        known_name("option", name, TrainOptions.__annotations__)
    need = for_machine(spec, machine, **options)
    return Training(spec, machine, replace(need, notes=(*machine.notes, *need.notes)), options)


def remedies(model: ModelSpec, machine: Machine, asked: TrainOptions) -> Iterator[str]:
    """What has kernels; then less kept, fewer sequences, a lighter method, shorter ones; or more cards."""
    lacking: dict[str, Any] = {row["option"]: row["instead"] for row in refusals(machine.card, asked)}
    asked = cast("TrainOptions", {**asked, **lacking})
    lighter = list(_lighter(model, machine, asked))
    for changed in lighter:
        yield f"--train {spoken(changed)}: {_held(model, machine, changed)}"
    for more in () if lacking and lighter else larger(machine):
        if for_machine(model, more, **asked).held_by(more.card.memory):
            words = f" --train {spoken(asked)}" if lacking else ""
            yield f"--gpus {spelled(more)}{words}: {_held(model, more, asked)}"
            return


def _held(model: ModelSpec, machine: Machine, asked: TrainOptions) -> str:
    need = for_machine(model, machine, **asked)
    return f"{need.total / GIB:.2f} of {machine.card.memory / GIB:.2f} GiB a card"


def _lighter(model: ModelSpec, machine: Machine, asked: TrainOptions) -> Iterator[TrainOptions]:
    """The largest batch as asked and with activations computed again; else by the next lighter method."""
    batch, sequence = asked.get("batch", 1), asked.get("sequence", 2048)
    tried = asked
    for method in METHODS[METHODS.index(asked.get("method", "full")) :]:
        most = 0
        for again in dict.fromkeys((asked.get("checkpointing", False), True)):
            tried = {**asked, "method": method, "checkpointing": again}
            fewer = _most(model, machine, tried, "batch", batch)
            if fewer > most:
                most = fewer
                yield {**tried, "batch": most} if most < batch else tried
        if most:
            return
    shorter = _most(model, machine, {**tried, "batch": 1}, "sequence", sequence)
    if shorter:
        yield {**tried, "batch": 1, "sequence": shorter}


def _most(model: ModelSpec, machine: Machine, asked: TrainOptions, name: str, most: int) -> int:
    """The largest value up to `most` with which it fits; 0: none does."""

    def over(value: int) -> bool:
        changed: dict[str, Any] = {**asked, name: value}
        return not for_machine(model, machine, **changed).held_by(machine.card.memory)

    return bisect_left(range(1, most + 1), True, key=over)


def spoken(asked: TrainOptions) -> str:
    """The words that `read` understands so."""
    words = [asked.get("method", "full")]
    for name, value in asked.items():
        if name not in ("method", "checkpointing") and value is not None:
            words.append(f"{name}={','.join(value) if isinstance(value, tuple) else value}")
    return " ".join((*words, "checkpointing") if asked.get("checkpointing") else words)


def anywhere(model: str | PathLike[str] | ModelSpec, **options: Unpack[TrainOptions]) -> Machines:
    """The smallest machine of each card that trains a model."""
    from memserve.hardware import cards
    from memserve.plan.library import model_of, on_cards

    spec = on_cards(model_of(model), None)
    found = (_smallest(spec, card, options) for card in cards() if card.vendor != "cpu")
    rows = [row for row in found if row is not None]
    return Machines(spec, tuple(sorted(rows, key=lambda row: (_rent(row) is None, _rent(row) or 0.0))))


def _smallest(model: ModelSpec, card: Card, options: TrainOptions) -> Training | None:
    """The fewest cards; with activations computed again where that was left open and takes fewer."""
    from memserve.hardware.machine import Machine

    lighter: TrainOptions = {**options, "checkpointing": True}
    tried = (
        train(model, Machine(card=card, cards_per_node=count), **asked)
        for count in COUNTS
        if count <= card.per_node
        for asked in ((options,) if "checkpointing" in options else (options, lighter))
    )
    return next((one for one in tried if one.fits), None)


def _rent(row: Training) -> float | None:
    from memserve.hardware import instances

    return instances.rent(row.machine).usd_per_hour


def _cells(row: Training) -> tuple[str, ...]:
    price = _rent(row)
    memory = row.machine.card.memory
    return (
        f"{row.machine.cards}x{row.machine.card.name}", f"{row.need.total / GIB:.2f}", f"{memory / GIB:.2f}",
        f"ZeRO {row.need.zero}", "yes" if row.need.checkpointing else "no",
        "-" if price is None else f"{price:.2f}",
    )  # fmt: skip


def read(words: Sequence[str]) -> TrainOptions:
    """`lora batch=4 sequence=2048` as arguments."""
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if not equals and word in METHODS:
            settings["method"] = word
        elif not equals and name in WORDS and WORDS[name] is bool:
            settings[name] = True
        elif name in WORDS and value:
            settings["lora_rank" if name == "rank" else name] = _value(name, value)
        else:
            known = ", ".join((*METHODS, *(f"{one}=..." for one in WORDS)))
            raise InvalidInput(f"--train does not know {word[:40]!r}", hint=f"it takes {known}")
    return cast("TrainOptions", settings)


def _value(name: str, value: str) -> Any:
    kind = WORDS[name]
    if kind is bool and value.lower() in TRUTHS:
        return TRUTHS[value.lower()]
    if kind is int and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if kind in (str, tuple):
        return value if kind is str else tuple(value.split(","))
    raise InvalidInput(f"--train {name}= takes {'true or false' if kind is bool else 'a whole number'}")


def need_object(need: TrainingNeed, memory: int) -> dict[str, Any]:
    """The need in GiB per card."""
    return {
        "method": need.method, "precision": need.precision, "optimizer": need.optimizer, "zero": need.zero,
        "cards": need.cards, "batch": need.batch, "sequence": need.sequence,
        "checkpointing": need.checkpointing, "trainable_parameters": need.trainable,
        "memory_gib_per_card": {
            "total": round(memory / GIB, 4), "needed": round(need.total / GIB, 4),
            **{part: round(getattr(need, part) / GIB, 4) for part in (*PARTS, "step", "shared")},
        },
        "reasons": list(need.notes),
    }  # fmt: skip


def sections(title: str, need: TrainingNeed, memory: int, speed: str = "") -> Iterator[Section]:
    """The need for a person."""
    fits = need.held_by(memory)
    verdict = "fits" if fits else "cannot be done there" if need.refused else "does not fit"
    yield Section(f"training {title}: {verdict}", style="good" if fits else "bad")
    yield Section(rows=(
        ("method", f"{need.method}, {need.optimizer}, {need.precision}"),
        ("sharding", f"ZeRO {need.zero} over {need.cards} cards" if need.cards > 1 else "none: one card"),
        ("batch", f"{need.batch} x {need.sequence} tokens per card"),
        ("recompute activations", "yes" if need.checkpointing else "no"),
        ("trained", f"{need.trainable / 1e6:,.1f} M parameters"),
        *([("speed", speed)] if speed else ()),
    ))  # fmt: skip
    sizes = {part: getattr(need, part) for part in PARTS}
    named = ", ".join(f"{part.replace('_', ' ')} {size / GIB:.2f}" for part, size in sizes.items())
    shared = f", a step's {need.step / GIB:.2f}, less {need.shared / GIB:.2f} where activations had been"
    sizes["optimizer_states"] += need.step - need.shared
    told = f"{named}{shared if need.shared else ''}: {need.total / GIB:.2f} of {memory / GIB:.2f} GiB"
    lines = (bar(sizes, memory), told)
    yield Section("memory per card", lines=lines, bullets=False, legend=LEGEND)
    if need.notes:
        yield Section("notes", lines=need.notes)
