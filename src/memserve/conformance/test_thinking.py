"""Thinking: thought and answer are apart however they are asked for; off means off, a budget is kept."""

import json
from typing import Any

import pytest

from memserve.conformance.asking import answer, joined, need, question, said, streamed
from memserve.errors import Unsupported

ASKED = "Which way is north?"
BUDGET = 8
CLOSING = 16
"""Tokens that may stand around a thought: its tags, and what closes it."""
TAGS = ("<think>", "</think>", "[THINK]", "◁think▷", "<seed:think>")
SCHEMA = {
    "type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"],
    "additionalProperties": False,
}  # fmt: skip


def _able(can: Any, *modes: str) -> None:
    """Skip where a mode is off; providers take no budget as small as a test's."""
    need(can, "chat")
    for mode in modes:
        if mode not in can.thinking:
            pytest.skip(f"capability thinking: {mode} is off")
        if mode == "budget":
            need(can, "tokenizer")


def _thought(generator: Any, max_tokens: int = 16, **settings: Any) -> tuple[str, Any]:
    """A question that this model thinks about and answers, and what it says; to some it may say nothing."""
    for prompt in (ASKED, *(question(number) for number in range(12))):
        got = answer(generator, prompt, max_tokens, thinking=BUDGET, **settings)
        if got.reasoning and got.text:
            return prompt, got
    pytest.fail("no question of 13 gave a thought and then an answer")


def test_off_means_off(generator: Any, can: Any) -> None:
    _able(can, "off")
    got = answer(generator, ASKED, 16, thinking=False)
    assert got.reasoning is None
    assert not got.usage.reasoning_tokens
    assert not any(tag in (got.text or "") for tag in TAGS)


def test_a_thought_comes_before_its_answer(generator: Any, can: Any) -> None:
    _able(can, "budget")
    _, got = _thought(generator)
    assert not any(tag in got.reasoning + got.text for tag in TAGS)


def test_a_budget_bounds_the_thought_alone(generator: Any, can: Any) -> None:
    _able(can, "budget")
    _, got = _thought(generator)
    spent, made = got.usage.reasoning_tokens, got.usage.completion_tokens
    if spent is None or made is None:
        pytest.skip("capability usage: the thought's tokens are not told")
    assert 0 < spent <= BUDGET + CLOSING
    assert 0 < made - spent <= (16 + CLOSING if can.max_tokens else made)


def test_a_stream_tells_thought_and_answer_apart(generator: Any, can: Any) -> None:
    _able(can, "budget")
    need(can, "deterministic", "stream")
    prompt, whole = _thought(generator)
    pieces = streamed(generator, prompt, 16, thinking=BUDGET)
    assert "".join(piece.reasoning for piece in pieces) == whole.reasoning
    assert joined(pieces) == whole.text
    places = [place for place, piece in enumerate(pieces) if piece.text]
    assert not any(piece.reasoning for piece in pieces[places[0] + 1 :])
    assert pieces[-1].usage is None or pieces[-1].usage.reasoning_tokens == whole.usage.reasoning_tokens


def test_neighbours_think_for_themselves(generator: Any, can: Any) -> None:
    _able(can, "budget")
    need(can, "deterministic")
    prompts = [question(n) for n in range(3)]
    together = answer(generator, prompts, 12, thinking=BUDGET)
    alone = [answer(generator, prompt, 12, thinking=BUDGET) for prompt in prompts]
    assert [(one.reasoning, one.text) for one in together] == [(one.reasoning, one.text) for one in alone]


def test_a_stop_string_ends_the_answer_and_not_the_thought(generator: Any, can: Any) -> None:
    _able(can, "budget")
    need(can, "deterministic", "stop")
    prompt, whole = _thought(generator, 24)
    inside = next((sign for sign in whole.reasoning if sign.isalpha() and sign in whole.text[1:]), None)
    if inside is None:
        pytest.skip("capability stop: thought and answer share no letter")
    cut = answer(generator, prompt, 24, thinking=BUDGET, stop=inside)
    assert (cut.reasoning, said(cut)) == (whole.reasoning, whole.text.partition(inside)[0])
    assert cut.finish_reason == "stop"


def test_a_schema_binds_the_answer_and_not_the_thought(generator: Any, can: Any) -> None:
    _able(can, "budget")
    need(can, "schema")
    _, got = _thought(generator, 48, schema=SCHEMA)
    assert isinstance(json.loads(got.text)["sure"], bool)
    assert got.parsed == json.loads(got.text)


def test_a_mode_that_is_not_there_is_refused(generator: Any, can: Any) -> None:
    for mode, wanted in (("on", True), ("off", False), ("budget", BUDGET)):
        if mode not in can.thinking:
            with pytest.raises(Unsupported):
                answer(generator, ASKED, 8, thinking=wanted)


def test_raw_text_has_no_thinking_to_set(generator: Any, can: Any) -> None:
    from memserve.errors import MemserveError
    from memserve.protocol import Raw

    need(can, "raw")
    with pytest.raises(MemserveError):
        answer(generator, Raw("north"), 8, thinking=False)
