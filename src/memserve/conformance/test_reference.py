"""Faithful: the deployment says what the model says elsewhere (`--reference`), as far as engines agree."""

import json
from typing import Any

from memserve.conformance.asking import answer, need
from memserve.conformance.test_tools import MOST, PICK, TOOLS

PROMPTS = [
    "Name a river in Europe.", "What is seven times eight?", "Write one line about the sea.", "Is ice cold?",
    "Translate 'window' into French.", "List three colours.", "Who wrote Hamlet?", "Count from one to five.",
    "What is the capital of Peru?", "Finish: the sun rises in the", "Give a word that rhymes with stone.",
    "Is 17 a prime number?",
]  # fmt: skip
ALIKE = 0.75
"""Of the prompts: kernels round differently, and now and then another token is the likeliest."""
NATS = 0.05
"""A token's log-probability may differ by so much on average: half precision does."""


def _both(generator: Any, reference: Any, most: int, **settings: Any) -> list[tuple[Any, Any]]:
    return list(zip(*(answer(one, PROMPTS, most, **settings) for one in (generator, reference)), strict=True))


def _judge(told: Any, name: str, pairs: list[tuple[Any, Any]]) -> None:
    share = sum(one == other for one, other in pairs) / len(pairs)
    told(name, share)
    assert share >= ALIKE, f"{name}: {share:.0%}"


def test_answers_begin_alike(generator: Any, reference: Any, record_property: Any) -> None:
    pairs = [(one.text[:20], other.text[:20]) for one, other in _both(generator, reference, 6)]
    _judge(record_property, "same beginnings", pairs)


def test_log_probabilities_lie_close(generator: Any, reference: Any, record_property: Any) -> None:
    for one in (generator, reference):
        need(one.capabilities, "logprobs")
    firsts = [
        (one.logprobs[0], other.logprobs[0]) for one, other in _both(generator, reference, 1, logprobs=1)
    ]
    apart = [abs(one.logprob - other.logprob) for one, other in firsts if one.token == other.token]
    assert apart, "no answer begins with the same token"
    record_property("nats", sum(apart) / len(apart))
    assert sum(apart) / len(apart) <= NATS


def test_tools_are_called_for_the_same_prompts(generator: Any, reference: Any, record_property: Any) -> None:
    for one in (generator, reference):
        need(one.capabilities, "tools")
    pairs = _both(generator, reference, MOST, tools=TOOLS)
    called = [tuple([call.name for call in one.tool_calls] for one in pair) for pair in pairs]
    _judge(record_property, "same calls", called)  # type: ignore[arg-type]


def _kept(text: str | None) -> bool:
    try:
        told = json.loads(text or "")
    except ValueError:
        return False
    return isinstance(told, dict) and set(told) == {"colour", "sure"} and isinstance(told["sure"], bool)


def test_schemas_are_kept_alike(generator: Any, reference: Any, record_property: Any) -> None:
    """Not the values: how an engine's grammar spaces JSON decides what comes next."""
    for one in (generator, reference):
        need(one.capabilities, "schema")
    pairs = _both(generator, reference, 64, schema=PICK)
    kept = [(_kept(one.text), True) for one, other in pairs if _kept(other.text)]
    assert kept, "the reference keeps no schema: nothing can be compared"
    _judge(record_property, "same keeping", kept)
