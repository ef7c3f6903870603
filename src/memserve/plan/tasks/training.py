"""`--train`: what one card needs to train a model, and whether the machine has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB
from memserve.plan.report.sections import Section, bar

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from memserve.memory.training import TrainingNeed

METHODS = ("full", "lora", "qlora")
WORDS = {
    "optimizer": str, "precision": str, "zero": int, "batch": int, "sequence": int, "lora_rank": int,
    "checkpointing": bool, "lora_targets": tuple,
}  # fmt: skip
TRUTHS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
PARTS = ("weights", "gradients", "optimizer_states", "activations", "logits", "buffers", "workspace")


def run(options: Namespace) -> int:
    """Answer a training question; 0 if it fits, 1 if not."""
    from memserve.memory import training
    from memserve.plan.library import machine_of, model_of

    model, machine = model_of(options.model), machine_of(options.gpus)
    need = training.for_machine(model, machine, **read(options.train))
    fits = need.total <= machine.card.memory
    if options.json:
        from memserve.plan.plan import machine_object, model_object
        from memserve.plan.report.object import SCHEMA, write_json

        write_json({
            "schema": SCHEMA, "model": model_object(model), "machine": machine_object(machine), "fits": fits,
            "plan": need_object(need, machine.card.memory) if fits else None,
            "closest": None if fits else need_object(need, machine.card.memory),
            "alternatives": [], "rejected": [],
        })  # fmt: skip
    else:
        from memserve.plan.report.page import render

        where = f"{machine.cards}x{machine.card.name}"
        render(sections(f"{model.id} on {where}", need, machine.card.memory))
    return 0 if fits else 1


def read(words: Sequence[str]) -> dict[str, Any]:
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
            settings[name] = _value(name, value)
        else:
            known = ", ".join((*METHODS, *(f"{one}=..." for one in WORDS)))
            raise InvalidInput(f"--train does not know {word[:40]!r}", hint=f"it takes {known}")
    return settings


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
            **{part: round(getattr(need, part) / GIB, 4) for part in PARTS},
        },
        "reasons": list(need.notes),
    }  # fmt: skip


def sections(title: str, need: TrainingNeed, memory: int) -> Iterator[Section]:
    """The need for a person."""
    fits = need.total <= memory
    verdict = "fits" if fits else "does not fit"
    yield Section(f"training {title}: {verdict}", style="good" if fits else "bad")
    yield Section(rows=(
        ("method", f"{need.method}, {need.optimizer}, {need.precision}"),
        ("sharding", f"ZeRO {need.zero} over {need.cards} cards"),
        ("batch", f"{need.batch} x {need.sequence} tokens per card"),
        ("recompute activations", "yes" if need.checkpointing else "no"),
        ("trained", f"{need.trainable / 1e6:,.1f} M parameters"),
    ))  # fmt: skip
    sizes = {part: getattr(need, part) for part in PARTS}
    named = (f"{part.replace('_', ' ')} {size / GIB:.2f}" for part, size in sizes.items())
    lines = (bar(sizes, memory), f"{', '.join(named)}: {need.total / GIB:.2f} of {memory / GIB:.2f} GiB")
    yield Section("memory per card", lines=lines, bullets=False)
    if need.notes:
        yield Section("notes", lines=need.notes)
