"""Functions as tools, and the loop that calls them."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pytest

import memserve
from memserve import tools
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.client.settings import check
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Capabilities, Completion, ToolCall


def weather(city: str, days: Annotated[int, "how many"] = 1, unit: Literal["C", "F"] = "C",
            tags: list[str] | None = None, more: Optional[dict[str, float]] = None) -> Any:  # noqa: UP045  # fmt: skip
    """Tells the weather."""
    if city == "Atlantis":
        raise LookupError("sunk")
    return {"city": city, "days": days}


class Scripted:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, answers: list[Completion], **able: Any) -> None:
        self.capabilities = Capabilities(backend="scripted", chat=True, tools=True, **able)
        self.answers, self.asked = answers, []

    def generate(self, requests):
        self.asked += requests
        return [self.answers.pop(0) for _ in requests]


def _call(name: str, arguments: str) -> Completion:
    return Completion(None, "tool_calls", tool_calls=(ToolCall("c1", name, arguments),), reasoning="Hm.")


def _open(engine: Scripted) -> Generator:
    return Generator(engine, for_engine(engine, 1))


def test_a_functions_schema_comes_from_its_types() -> None:
    made = tools.describe(weather)["function"]
    assert (made["name"], made["description"]) == ("weather", "Tells the weather.")
    assert made["parameters"] == {
        "type": "object", "required": ["city"], "additionalProperties": False,
        "properties": {
            "city": {"type": "string"}, "days": {"type": "integer", "description": "how many"},
            "unit": {"enum": ["C", "F"]},
            "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
            "more": {"anyOf": [
                {"type": "object", "additionalProperties": {"type": "number"}}, {"type": "null"}]},
        },
    }  # fmt: skip


class Unit(Enum):
    celsius = "C"
    kelvin = "K"


def test_values_come_as_their_hints_want_them() -> None:
    def heat(unit: Unit, other: Annotated[Unit | None, "if any"] = None) -> str:
        return f"{unit!r} {other!r}"

    assert tools.describe(heat)["function"]["parameters"]["properties"]["unit"] == {"enum": ["C", "K"]}
    answers = {
        '{"unit": "C"}': "celsius: 'C'> None",
        '{"unit": "K", "other": null}': "kelvin",
        '{"unit": 1}': "error:",
    }
    for arguments, told in answers.items():
        done = tools.loop(
            _open(Scripted([_call("heat", arguments), Completion("Oh.", "stop")])), "Hi", [heat]
        )
        assert told in done.messages[2]["content"]


async def later(city: str) -> str:
    return city


def unknown(city: Nowhere) -> str:  # noqa: F821
    return city


@pytest.mark.parametrize(("function", "word"), [
    (later, "later is async"), (unknown, "a type hint cannot be read"), (lambda x: x, "not <lambda>"),
])  # fmt: skip
def test_functions_that_cannot_be_tools_are_refused_before_any_work(function: Any, word: str) -> None:
    engine = Scripted([])
    with pytest.raises(InvalidInput, match=word):
        tools.loop(_open(engine), "Hi", [function])
    assert engine.asked == []


def test_the_awaited_loop_calls_async_functions_and_others_alike() -> None:
    async def fails(city: str) -> str:
        raise LookupError("sunk")

    calls = [
        _call("later", '{"city": "Rome"}'),
        _call("weather", '{"city": "Paris"}'),
        _call("fails", '{"city": "x"}'),
    ]
    engine = Scripted([*calls, Completion("Sunny.", "stop")])
    done = asyncio.run(tools.aloop(_open(engine), "Hi", [later, weather, fails]))
    said = [one["content"] for one in done.messages if one["role"] == "tool"]
    assert said == ["Rome", '{"city": "Paris", "days": 1}', "error: LookupError: sunk"]
    assert done.answer.text == "Sunny."


def test_parameters_without_names_are_refused() -> None:
    def many(*words: str) -> None: ...

    with pytest.raises(InvalidInput, match=r"\*words"):
        tools.describe(many)


def test_the_loop_calls_and_goes_on_until_an_answer() -> None:
    engine = Scripted([_call("weather", '{"city": "Paris"}'), Completion("Sunny.", "stop")], temperature=True)
    done = tools.loop(_open(engine), "What is the weather?", [weather], temperature=0.5)
    assert done.answer.text == "Sunny."
    assert [one["role"] for one in done.messages] == ["user", "assistant", "tool", "assistant"]
    assert done.messages[2]["content"] == '{"city": "Paris", "days": 1}'
    assert done.messages[2]["tool_call_id"] == done.messages[1]["tool_calls"][0]["id"] == "c1"
    assert engine.asked[1].prompt == done.messages[:3]
    assert {one.temperature for one in engine.asked} == {0.5}


@pytest.mark.parametrize(("call", "told"), [
    (_call("weather", '{"city": "Atlantis"}'), "error: LookupError: sunk"),
    (_call("weather", '{"town": "Paris"}'), "unexpected keyword argument 'town'"),
    (_call("weather", "{"), "error: JSONDecodeError"),
    (_call("weather", "[1]"), "error: what is passed is of type object, not [1]"),
    (_call("weather", '{"city": "Paris", "days": "2"}'), 'error: days is of type integer, not "2"'),
    (_call("weather", '{"city": "Paris", "days": true}'), "error: days is of type integer, not true"),
    (_call("weather", '{"city": "Paris", "days": 2.0}'), '"days": 2}'),
    (_call("weather", '{"city": "Paris", "unit": "K"}'), "error: unit is one of 'C', 'F', not 'K'"),
    (_call("weather", '{"city": "Paris", "tags": ["a", 1]}'), "error: tags is of type string, not 1"),
    (_call("weather", '{"city": "Paris", "tags": null, "more": {"a": 1}}'), '"days": 1}'),
    (_call("sing", "{}"), "there is no function sing; there are weather"),
])  # fmt: skip
def test_what_goes_wrong_is_told_to_the_model(call: Completion, told: str) -> None:
    done = tools.loop(_open(Scripted([call, Completion("Oh.", "stop")])), "Hi", [weather])
    assert told in done.messages[2]["content"]
    assert done.answer.text == "Oh."


def test_after_so_many_rounds_no_call_is_allowed() -> None:
    engine = Scripted([_call("weather", '{"city": "Paris"}')] * 2 + [Completion("Enough.", "stop")])
    done = tools.loop(_open(engine), [{"role": "user", "content": "Hi"}], [weather], rounds=2)
    assert done.answer.text == "Enough."
    assert [one.tool_choice for one in engine.asked] == [None, None, "none"]


@pytest.mark.parametrize("rounds", [0, -1, True, 1.5, None])
def test_no_rounds_are_refused_before_anything_is_asked(rounds: Any) -> None:
    engine = Scripted([Completion("Oh.", "stop")])
    with pytest.raises(InvalidInput, match="rounds is a whole number from 1"):
        tools.loop(_open(engine), "Hi", [weather], rounds=rounds)
    assert engine.asked == []


def test_a_bare_function_is_refused_with_what_makes_a_tool_of_it() -> None:
    with pytest.raises(InvalidInput, match=r"tools\[0\] is a mapping, not a function .*tools.describe"):
        _open(Scripted([])).generate("Hi", tools=[weather])
    with pytest.raises(InvalidInput, match="True, False or a whole number of tokens, not 'yes'"):
        check("thinking", "yes")


def test_thoughts_go_along_where_a_template_reads_them() -> None:
    answers = [_call("weather", '{"city": "Paris"}'), Completion("Sunny.", "stop")]
    for able in ("template", "thoughts"):
        done = tools.loop(_open(Scripted(list(answers), **{able: True})), "Hi", [weather])
        assert done.messages[1]["reasoning_content"] == "Hm."
    assert "reasoning_content" not in tools.loop(_open(Scripted(answers)), "Hi", [weather]).messages[1]


def test_a_backend_without_tools_refuses_before_any_work() -> None:
    engine = Scripted([])
    engine.capabilities = Capabilities(backend="scripted", chat=True)
    with pytest.raises(Unsupported, match="tools"):
        tools.loop(_open(engine), "Hi", [weather])
    assert engine.asked == []


def test_a_tool_that_is_not_there_cannot_be_chosen() -> None:
    generator, tool = _open(Scripted([])), tools.describe(weather)
    for given, choice in (([tool], {"type": "function", "function": {"name": "sing"}}), ([], "required")):
        with pytest.raises(InvalidInput, match="tool_choice"):
            generator.generate("Hi", tools=given, tool_choice=choice)
    with pytest.raises(InvalidInput, match=r"tools\[0\]\.function is a mapping, not int"):
        generator.generate("Hi", tools=[{"type": "custom", "function": 2}], tool_choice="auto")


@pytest.mark.parametrize("functions", [["weather"], [weather, weather], [5]])
def test_what_is_no_tool_or_one_twice_is_refused(functions):
    with pytest.raises(InvalidInput, match="function"):
        tools.loop(_open(Scripted([])), "x", functions)


@pytest.mark.parametrize("messages", [[1, 2], memserve.Raw("x"), None, [], ["a"]])
def test_a_loop_goes_on_from_a_text_or_messages(messages: Any) -> None:
    with pytest.raises(InvalidInput, match="a text or a list of messages"):
        tools.loop(_open(Scripted([])), messages, [weather])


def test_a_result_with_half_a_character_does_not_end_the_conversation() -> None:
    def read() -> str:
        return "a\ud800b"

    done = tools.loop(_open(Scripted([_call("read", "{}"), Completion("Oh.", "stop")])), "Hi", [read])
    assert (done.messages[2]["content"], done.answer.text) == ("a?b", "Oh.")
