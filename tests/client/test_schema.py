"""Answers under a schema: values, instances of pydantic models, a second asking."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import memserve
from memserve import errors
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.protocol import Capabilities, Completion, Raw, Request, Usage

SCHEMA = {"type": "object", "required": ["name"]}


class Said:
    """Gives its answers one after the other."""

    capabilities = Capabilities(
        backend="toy", chat=True, raw=True, schema=True, choices=True, max_tokens=True, stream=True
    )

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), []

    def generate(self, requests: Any) -> list[Completion]:
        self.asked += requests
        return [Completion(self.answers.pop(0), "stop", usage=Usage(3, 2)) for _ in requests]


def opened(*answers: str) -> tuple[Generator, Said]:
    engine = Said(*answers)
    return Generator(engine, for_engine(engine, 4)), engine


@pytest.fixture
def city() -> Any:
    pydantic = pytest.importorskip("pydantic", reason="pydantic comes with extras")
    return pydantic.create_model("City", name=(str, ...), people=(int, ...))


def test_parsed_is_the_value_or_an_instance(city: Any) -> None:
    generator, engine = opened('{"name": "Paris"}', '{"name": "Paris", "people": 2}')
    assert generator.generate("a", schema=SCHEMA).parsed == {"name": "Paris"}
    answer = generator.generate("a", schema=city)
    assert answer.parsed == city(name="Paris", people=2)
    assert engine.asked[1].schema == city.model_json_schema()
    assert json.loads(json.dumps(answer.to_dict()))["parsed"] == {"name": "Paris", "people": 2}


def test_a_broken_answer_is_asked_for_again_with_the_reason(city: Any) -> None:
    generator, engine = opened('{"name": "Paris", "people": "many"}', '{"name": "Paris", "people": 2}')
    answer = generator.generate("where?", schema=city, reask=1)
    assert answer.parsed.people == 2
    assert answer.usage == Usage(6, 4)
    first, second, third = engine.asked[1].prompt
    assert (first["content"], second["content"]) == ("where?", '{"name": "Paris", "people": "many"}')
    assert "people" in third["content"]


def test_only_the_broken_ones_are_asked_again_and_no_more_than_that() -> None:
    generator, engine = opened('{"name": 1}', "no", '{"name": 2}', "no", '{"name": 3}')
    answers = generator.generate(["a", "b", "c"], schema=SCHEMA, reask=2)
    assert [one.parsed["name"] for one in answers] == [1, 3, 2]
    assert len(engine.asked) == 5
    generator, engine = opened("no", "no")
    with pytest.raises(errors.BadAnswer, match="JSON"):
        asyncio.run(generator.agenerate("a", schema=SCHEMA, reask=1))
    assert len(engine.asked) == 2


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [("a", {"reask": 1}), (Raw("a"), {"reask": 1, "schema": SCHEMA}), ("a", {"reask": -1, "schema": SCHEMA}),
     (Request(prompt="a", reask=1), {}), ("a", {"schema": int}), ("a", {"schema": "x"})],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(prompt: Any, settings: Any) -> None:
    generator, engine = opened()
    with pytest.raises(errors.InvalidInput, match=r"reask|schema"):
        generator.generate(prompt, **settings)
    assert engine.asked == []


@pytest.mark.parametrize(("typed", "meant"), [("base_ulr", "base_url"), ("dialekt", "dialect")])
def test_a_mistyped_option_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(errors.Unsupported, match=f"did you mean {meant}"):
        memserve.generator("m", backend="openai", **{typed: "x"})


NODE = {"type": "object", "properties": {"next": {"$ref": "#"}}}
ENDLESS = [
    {"$ref": "#"},
    {"allOf": [{"$ref": "#"}]},
    {**NODE, "required": ["next"]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"anyOf": [{"$ref": "#"}, {**NODE, "required": ["next"]}]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"$ref": "#/$defs/gone"},
    {"$ref": "#/anyOf/7", "anyOf": [{"type": "null"}]},
]
ENDING = [
    NODE,
    {"type": "array", "items": {"$ref": "#"}},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 0},
    {"anyOf": [{**NODE, "required": ["next"]}, {"type": "null"}]},
    {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "string"}}},
    {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    {"type": ["object", "null"], "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
    {"type": "object", "required": ["next", "other"]},
]


@pytest.mark.parametrize("schema", ENDLESS)
def test_a_schema_that_no_value_keeps_is_refused_before_any_work(schema: Any) -> None:
    generator, engine = opened()
    with pytest.raises(errors.InvalidInput, match=r"leads nowhere|asks for itself"):
        generator.generate("a", schema=schema)
    assert not engine.asked


@pytest.mark.parametrize("schema", ENDING)
def test_a_schema_that_names_itself_and_ends_is_taken(schema: Any) -> None:
    generator, engine = opened("null")
    generator.generate("a", schema=schema, on_error="return")
    assert engine.asked


def test_schemas_as_deep_as_a_body_can_hold_are_read() -> None:
    deep: Any = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep, "minItems": 1}
    generator, engine = opened("[]")
    generator.generate("a", schema=deep)
    assert engine.asked


def test_a_choice_may_begin_and_end_with_white_space() -> None:
    generator, _ = opened(" A", " B ", "B")
    for said, choices in ((" A", [" A", " B"]), (" B ", [" A", "B"]), ("B", ["A", "B"])):
        assert generator.generate("x", choices=choices).text == said
