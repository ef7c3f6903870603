"""Questions for the planner, made by chance: a model, a machine, a context, requests at once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import memserve
from memserve.errors import DoesNotFit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.plan import Plan

MODELS = (
    "llama-8b", "llama-70b", "llama-2-7b", "qwen3-8b", "qwen3-32b", "qwen3-30b-a3b", "gemma-3-27b",
    "gemma-2-9b", "mixtral-8x7b", "phi-4", "gpt-oss-20b", "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen3-235B-A22B", "deepseek-v3", "mistralai/Mistral-7B-Instruct-v0.3",
)  # fmt: skip
CARDS = ("T4", "V100", "V100-16GB", "L4", "A10", "A100-40GB", "A100-80GB", "RTX3090", "RTX4090", "L40S",
         "H100", "H200", "B200", "MI300X", "910B2", "910B4", "A6000", "P100")  # fmt: skip
CONTEXTS = (2048, 4096, 8192, 16384, 32768)
AT_ONCE = (1, 1, 2, 4, 8, 16, 32)


class Question(NamedTuple):
    """What is asked without any option fixed."""

    model: str
    gpus: str
    options: dict[str, Any]

    def best(self, **fixed: Any) -> Plan | None:
        """The plan, with some options fixed; None where nothing fits."""
        try:
            return memserve.plan.best(self.model, self.gpus, **self.options, **fixed)
        except DoesNotFit:
            return None

    def miss(self) -> DoesNotFit:
        """What is raised for a question that nothing answers."""
        with pytest.raises(DoesNotFit) as missed:
            memserve.plan.best(self.model, self.gpus, **self.options)
        return missed.value

    def closest(self) -> Plan:
        """The nearest miss of a question that nothing answers."""
        return self.miss().closest  # type: ignore[no-any-return, attr-defined]

    def remedies(self) -> list[str]:
        """What would fit; nothing where the question is answered."""
        return [] if self.best() else (self.miss().hint or "").split("; ")


def questions(count: int, seed: int) -> Iterator[Question]:
    """So many questions; a seed gives the same ones."""
    chance = random.Random(seed)
    for _ in range(count):
        model, card, cards = chance.choice(MODELS), chance.choice(CARDS), chance.choice((1, 1, 2, 4, 8))
        options = {"context": chance.choice(CONTEXTS), "concurrency": chance.choice(AT_ONCE)}
        yield Question(model, f"{cards}x{card}", options)
