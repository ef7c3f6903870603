"""Structured answers: the schema holds, or the request is refused before it is generated."""

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from memserve.conformance.asking import (
    BROKEN,
    answer,
    awaited,
    common,
    heat,
    joined,
    limited,
    long_answer,
    need,
    piece,
    question,
    said,
    streamed,
    worded,
)
from memserve.errors import BadRequest, InvalidInput

SCHEMA = {
    "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"], "additionalProperties": False,
}  # fmt: skip
NESTED = {
    "type": "object",
    "properties": {
        "trip": {
            "type": "object",
            "properties": {
                "days": {"type": "integer"},
                "ways": {"type": "array", "items": {"enum": ["north", "south"]}},
            },
            "required": ["days", "ways"],
            "additionalProperties": False,
        },
    },
    "required": ["trip"],
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
    _judge(said(got), got.finish_reason)
    assert got.usage.completion_tokens is None or got.usage.completion_tokens >= 4


def test_schemas_hold_in_a_batch(generator: Any, can: Any) -> None:
    need(can, "schema")
    prompts = [question(n) for n in range(3)]
    for one in answer(generator, prompts, 64, schema=SCHEMA):
        _judge(one.text, one.finish_reason)


def test_schemas_hold_however_they_are_asked(generator: Any, can: Any) -> None:
    need(can, "schema")
    told = asyncio.run(awaited(generator, question(2), 64, schema=SCHEMA))
    _judge(said(told), told.finish_reason)
    if can.stream:
        pieces = streamed(generator, question(2), 64, schema=SCHEMA)
        _judge(joined(pieces), next(p.finish_reason for p in pieces if p.finish_reason))


def test_schemas_hold_when_sampled(generator: Any, can: Any) -> None:
    need(can, "schema", "temperature")
    hot = {"temperature": heat(generator, 1.3)}
    if can.n and (can.max_n or 2) > 1:
        hot["n"] = 2
    got = answer(generator, question(2), 64, schema=SCHEMA, **hot)
    for one in got.samples or (got,):
        _judge(said(one), one.finish_reason)


def test_parts_of_a_schema_hold_too(generator: Any, can: Any) -> None:
    """Another schema than the first one, and not a flat one; who cannot do it says so."""
    need(can, "schema")
    try:
        got = answer(generator, "Where to go, as JSON:", 96, schema=NESTED)
    except (InvalidInput, BadRequest):
        pytest.skip("capability schema: a nested schema is refused")
    if got.finish_reason != "stop":
        assert said(got).strip()[:1] in ("", "{")
    else:
        _judge_nested(json.loads(said(got)))


def _judge_nested(value: Any) -> None:
    assert set(value) == {"trip"}
    assert set(value["trip"]) == {"days", "ways"}
    assert type(value["trip"]["days"]) is int
    assert set(value["trip"]["ways"]) <= {"north", "south"}


def test_a_schema_binds_only_its_own_request(generator: Any, can: Any) -> None:
    need(can, "schema", "deterministic")
    free = answer(generator, question(1), 6).text
    answer(generator, question(1), 12, schema=SCHEMA)
    assert answer(generator, question(1), 6).text == free


def test_a_schema_that_is_none_is_refused(generator: Any, can: Any) -> None:
    need(can, "schema")
    with pytest.raises(InvalidInput):
        answer(generator, "x", 4, schema={"type": "no such type"})


def test_a_choice_is_one_of_those_offered(generator: Any, can: Any) -> None:
    need(can, "choices")
    offered = ["the river", "a lamp", "seven"]
    for one in answer(generator, [question(n) for n in range(3)], 24, choices=offered):
        assert one.text in offered


def test_the_order_of_choices_changes_nothing(generator: Any, can: Any) -> None:
    need(can, "choices", "deterministic")
    offered = ["the river", "a lamp", "seven", "under the bridge"]
    for number in range(3):
        got = {
            said(answer(generator, question(number), 24, choices=offered[n:] + offered[:n])) for n in range(4)
        }
        assert len(got) == 1, "a greedy answer is the likeliest choice, wherever it stands"


def test_a_regex_is_matched_whole(generator: Any, can: Any) -> None:
    need(can, "regex")
    for form in ("[0-9]{3}", "(red|blue) lamp", "[a-f]{2}-[0-9]"):
        got = answer(generator, f"Something of the form {form}:", 24, regex=form)
        assert re.fullmatch(form, said(got))
    prompt = worded(can, question(1))
    told = asyncio.run(generator.agenerate([prompt, prompt], **limited(can, 24, {"regex": "[0-9]{3}"})))
    assert all(re.fullmatch("[0-9]{3}", said(one)) for one in told)


# ---------------------------------------------------------------------- stop


def test_a_stop_string_cuts(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    got = answer(generator, prompt, 24, stop=[stop])
    assert said(got) == free.text[: free.text.find(stop)]
    assert got.finish_reason == "stop"


def test_a_stop_string_may_lie_across_tokens(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator, least=8)
    for size in range(2, 7):
        stop = free.text[2 : 2 + size]
        got = answer(generator, prompt, 24, stop=[stop])
        assert said(got) == free.text[: free.text.find(stop)], f"stop {stop!r}"


def test_the_first_stop_in_the_text_wins(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    if can.max_stop == 1:
        pytest.skip("capability max_stop: one at a time")
    prompt, free = long_answer(generator, least=8)
    early, late = free.text[1:3], free.text[-3:]
    cut = min(free.text.find(early), free.text.find(late))
    for stops in ([late, early], [early, late]):
        assert answer(generator, prompt, 24, stop=stops).text == free.text[:cut]


def test_every_stop_of_a_list_is_heard(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    if can.max_stop == 1:
        pytest.skip("capability max_stop: one at a time")
    prompt, free = long_answer(generator)
    never = ["\u2603 one", "\u2603 two", "\u2603 three"][: (can.max_stop or 4) - 1]
    stop = piece(free.text)
    for stops in ([stop, *never], [*never, stop]):
        assert answer(generator, prompt, 24, stop=stops).text == free.text[: free.text.find(stop)]


def test_a_stop_keeps_the_space_before_it(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    at, number, free = next(_word_ends(generator), (0, 0, ""))
    if not at:
        pytest.skip("capability stop: no answer of this model has a word that stands in it once")
    assert answer(generator, question(number), 24, stop=[free[at : at + 4]]).text == free[:at]


def _word_ends(generator: Any) -> Iterator[tuple[int, int, str]]:
    """Where in an answer a word begins that stands in it once, which answer, and the answer."""
    for number in range(12):
        free = said(answer(generator, question(number), 24))
        spaces = [at for at in range(2, len(free)) if free[at - 1].isspace() and not free[at].isspace()]
        for at in spaces[:2]:
            if free.find(free[at : at + 4]) == at and BROKEN not in free[: at + 4]:
                yield at, number, free


def test_stops_are_compared_letter_by_letter(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    other_case = piece(said(free)).swapcase()
    for stop in (".", "^", "[a-z]", "\\w+", other_case):
        expected = said(free).partition(stop)[0]
        assert said(answer(generator, prompt, 24, stop=[stop])) == expected, f"stop {stop!r}"


def test_a_stop_in_the_prompt_is_no_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    asked = next((word for word in prompt.split() if word not in said(free)), None)
    if asked:
        assert answer(generator, prompt, 24, stop=[asked]).text == free.text


def test_a_stop_at_the_limit_is_a_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic", "max_tokens")
    number, limit, text = next(_own_ends(generator), (0, 0, ""))
    if not text:
        pytest.skip("capability stop: no answer of this model ends with letters that stand in it once")
    got = answer(generator, question(number), limit, stop=[text[-3:]])
    assert (said(got), got.finish_reason) == (text[:-3], "stop")


def _own_ends(generator: Any) -> Iterator[tuple[int, int, str]]:
    """Answers, with their question and limit, whose last three letters stand in them once."""
    for number, limit in product(range(6), (5, 8, 11)):
        text = said(answer(generator, question(number), limit))
        stop = text[-3:]
        plain = len(stop) == 3 and stop.strip() == stop and BROKEN not in stop
        if plain and text.find(stop) == len(text) - 3:
            yield number, limit, text


def test_stops_cut_what_is_sampled(generator: Any, can: Any) -> None:
    need(can, "stop", "temperature")
    hot = {"temperature": heat(generator, 1.1)}
    prompts = [question(n) for n in range(4)]
    stop = common([said(one) for one in answer(generator, prompts, 24, **hot)])
    got = answer(generator, prompts, 24, stop=[stop], **hot)
    got += [answer(generator, prompt, 24, stop=[stop], **hot) for prompt in prompts]
    assert all(stop not in said(one) for one in got)


def test_a_stop_that_never_comes_changes_nothing(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    got = answer(generator, prompt, 24, stop=["\u2603 never said \u2603"])
    assert (got.text, got.finish_reason) == (free.text, free.finish_reason)


def test_a_stop_may_be_a_plain_string(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    assert answer(generator, prompt, 24, stop=stop).text == free.text[: free.text.find(stop)]


def test_the_end_of_an_answer_is_told(generator: Any, can: Any) -> None:
    need(can, "stop")
    prompt, free = long_answer(generator)
    assert free.finish_reason in {"stop", "length"}
    got = answer(generator, prompt, 24, stop=[piece(free.text)])
    assert got.finish_reason == "stop" or not can.deterministic
