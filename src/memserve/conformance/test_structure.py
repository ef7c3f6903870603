"""Structured answers: the schema holds, or the request is refused before it is generated."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from memserve.conformance.asking import answer, need, question
from memserve.errors import InvalidInput

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}


def _judge(text: str, finished: str | None) -> None:
    if finished == "stop":
        value = json.loads(text)
        assert set(value) == {"colour", "sure"}
        assert value["colour"] in ("red", "blue")
        assert isinstance(value["sure"], bool)
    else:
        assert re.fullmatch(r'\s*(\{\s*("(c(olour("\s*(:.*)?)?|ol?o?u?)?)?)?.*)?', text, re.DOTALL), text
        assert not text.strip() or text.strip().startswith("{")


def test_an_answer_follows_its_schema(generator: Any, can: Any) -> None:
    need(can, "schema")
    got = answer(generator, "Pick a colour and say whether you are sure, as JSON.", 64, schema=SCHEMA)
    _judge(got.text, got.finish_reason)


def test_schemas_hold_in_a_batch(generator: Any, can: Any) -> None:
    need(can, "schema")
    prompts = [question(n) for n in range(3)]
    for one in answer(generator, prompts, 64, schema=SCHEMA):
        _judge(one.text, one.finish_reason)


def test_a_schema_binds_only_its_own_request(generator: Any, can: Any) -> None:
    need(can, "schema", "deterministic")
    free = answer(generator, question(1), 6).text
    answer(generator, question(1), 12, schema=SCHEMA)
    assert answer(generator, question(1), 6).text == free


def test_a_schema_that_is_none_is_refused(generator: Any, can: Any) -> None:
    need(can, "schema")
    with pytest.raises(InvalidInput):
        generator.generate("x", max_tokens=4, schema={"type": "no such type"})


def test_a_choice_is_one_of_those_offered(generator: Any, can: Any) -> None:
    need(can, "choices")
    offered = ["the river", "a lamp", "seven"]
    for one in answer(generator, [question(n) for n in range(3)], 24, choices=offered):
        assert one.text in offered


def test_a_regex_is_matched_whole(generator: Any, can: Any) -> None:
    need(can, "regex")
    got = answer(generator, "A number of three digits:", 24, regex="[0-9]{3}")
    assert re.fullmatch("[0-9]{3}", got.text)
