"""How many texts a second an embedder or a reranker reads: prompts alone, with no token written."""

from dataclasses import replace
from functools import cache
from typing import Any

from memserve import files
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.speed.result import Range
from memserve.speed.roofline import constants, engines, forecast, queueing, shape, step
from memserve.speed.roofline.situation import Situation


def texts_per_s(model: ModelSpec, machine: Machine, *, backend: str, input_tokens: float,
                **layout: Any) -> Range:  # fmt: skip
    """Texts of so many tokens that the whole machine reads a second when it is kept busy."""
    situation = forecast.situate(
        shape.of(model), machine, backend, queueing.Load(max(1.0, input_tokens), 1.0), None, **layout
    )
    seen = input_tokens if model.encoder_only else input_tokens / 2
    rate = _rate(situation, seen) * situation.spread.replicas
    low, high = _data()["range"]
    return Range(rate * low, rate, rate * high)


def _share(situation: Situation) -> float:
    """Of the card's arithmetic peak: the engine's, where its folder states one, else everybody's."""
    known = engines.facts(situation.engine).get("texts_share", _data()["share"])
    return float(known * _data()["cards"].get(constants.family(situation.setup.card), 1.0))


@cache
def _data() -> dict[str, Any]:
    return dict(files.table(__file__, "../data/texts.json"))


def _rate(situation: Situation, seen: float) -> float:
    """Texts a second of one replica: full steps, of which each token sees so many others."""
    limits, tokens, k = situation.limits, situation.load.input_tokens, situation.setup.constants
    setup = situation.setup._replace(constants=replace(k, prefill=_share(situation)))
    together = max(1.0, min(limits.sequences, limits.tokens / tokens))
    chunk = min(tokens * together, float(limits.tokens))
    work = tokens * together / chunk * (step.prefill(setup, chunk, seen) + k.step_s)
    launches = setup.shape.layers * k.layer_s if k.overlaps else 0.0
    return together / (max(work, launches) + together * k.sequence_s)
