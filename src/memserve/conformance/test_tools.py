"""Tools: a call keeps its tool's schema, comes alike however it is asked for, and is read back."""

import asyncio
import json
from typing import Any

import pytest

from memserve.conformance.asking import answer, awaited, joined, need, question, streamed
from memserve.errors import MemserveError

PICK = {
    "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"], "additionalProperties": False,
}  # fmt: skip
TURN = {
    "type": "object", "properties": {"way": {"enum": ["north", "south"]}}, "required": ["way"],
    "additionalProperties": False,
}  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": name, "description": told, "parameters": schema}}
    for name, told, schema in (("pick_colour", "Picks a colour.", PICK), ("turn", "Turns somewhere.", TURN))
]
NAMED = {"type": "function", "function": {"name": "turn"}}
ASKED = "Pick a colour, please."
MOST = 160


def _judge(calls: Any) -> None:
    assert calls
    for call in calls:
        assert call.name in ("pick_colour", "turn")
        assert call.id
        made = json.loads(call.arguments)
        if call.name == "turn":
            assert made in ({"way": "north"}, {"way": "south"})
        else:
            assert set(made) == {"colour", "sure"}
            assert made["colour"] in ("red", "blue")
            assert isinstance(made["sure"], bool)


def test_a_required_call_comes_and_keeps_its_schema(generator: Any, can: Any) -> None:
    need(can, "chat", "tools")
    got = answer(generator, ASKED, MOST, tools=TOOLS, tool_choice="required")
    _judge(got.tool_calls)
    assert got.finish_reason in ("tool_calls", "length")


def test_a_named_tool_alone_is_called(generator: Any, can: Any) -> None:
    need(can, "chat", "tools")
    got = answer(generator, ASKED, MOST, tools=TOOLS, tool_choice=NAMED)
    _judge(got.tool_calls)
    assert {call.name for call in got.tool_calls} == {"turn"}


def test_none_is_no_call(generator: Any, can: Any) -> None:
    need(can, "chat", "tools")
    got = answer(generator, [ASKED, *(question(n) for n in range(3))], 12, tools=TOOLS, tool_choice="none")
    assert [one.tool_calls for one in got] == [()] * 4
    assert {one.finish_reason for one in got} <= {"stop", "length"}
    assert any(one.text for one in got)


def test_a_call_is_no_text(generator: Any, can: Any) -> None:
    need(can, "chat", "tools")
    got = answer(generator, ASKED, MOST, tools=TOOLS, tool_choice=NAMED)
    assert "way" not in (got.text or "")
    assert "turn" not in (got.text or "")


def test_calls_of_one_answer_have_names_of_their_own(generator: Any, can: Any) -> None:
    need(can, "chat", "tools")
    got = answer(generator, [question(n) for n in range(3)], MOST, tools=TOOLS, tool_choice="required")
    for one in got:
        _judge(one.tool_calls)
        assert len({call.id for call in one.tool_calls}) == len(one.tool_calls)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_streamed_and_awaited_calls_are_the_same(generator: Any, can: Any, choice: str) -> None:
    need(can, "chat", "tools", "stream", "deterministic")
    how = {"tools": TOOLS, "tool_choice": choice}
    whole, pieces = answer(generator, ASKED, MOST, **how), streamed(generator, ASKED, MOST, **how)
    found = [call for piece in pieces for call in piece.tool_calls]
    told = [(call.name, call.arguments) for call in whole.tool_calls]
    assert [(call.name, call.arguments) for call in found] == told
    assert joined(pieces) == (whole.text or "")
    assert pieces[-1].finish_reason == whole.finish_reason
    again = asyncio.run(awaited(generator, ASKED, MOST, **how))
    assert [(call.name, call.arguments) for call in again.tool_calls] == told


def test_tools_are_part_of_the_prompt(generator: Any, can: Any) -> None:
    need(can, "chat", "tools", "usage")
    few, many = (answer(generator, ASKED, 4, tools=tools).usage.prompt_tokens for tools in (TOOLS[:1], TOOLS))
    assert answer(generator, ASKED, 4).usage.prompt_tokens < few < many


def test_calls_and_results_are_read_back(generator: Any, can: Any) -> None:
    need(can, "chat", "tools", "usage")
    got = answer(generator, ASKED, MOST, tools=TOOLS, tool_choice="required")
    call = got.tool_calls[0]
    function = {"name": call.name, "arguments": call.arguments}

    def talk(result: str) -> list[dict[str, Any]]:
        asked = {"role": "assistant", "content": None,
                 "tool_calls": [{"id": call.id, "type": "function", "function": function}]}  # fmt: skip
        told = {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result}
        return [{"role": "user", "content": ASKED}, asked, told]

    short, longer = (
        answer(generator, talk(said), 8, tools=TOOLS).usage.prompt_tokens for said in ("done", "done " * 20)
    )
    assert answer(generator, ASKED, 8, tools=TOOLS).usage.prompt_tokens < short < longer


def test_a_tool_that_is_not_there_cannot_be_chosen(generator: Any, can: Any) -> None:
    need(can, "chat", "tools")
    for tools, choice in ((TOOLS, {"type": "function", "function": {"name": "sing"}}), (None, "required")):
        with pytest.raises(MemserveError):
            answer(generator, ASKED, 8, tools=tools, tool_choice=choice)
