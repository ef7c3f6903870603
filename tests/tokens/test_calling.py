# ruff: noqa: E501
"""Calls of tools come out of text, whole and cut at every place, for every family of the table."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transcripts import CITY, GPT_OSS, TOOL, TRANSCRIPTS

from memserve.errors import InvalidInput
from memserve.protocol import Request
from memserve.tokens import calling, reader, thinking
from memserve.tokens.detokenizer import Detokenizer
from memserve.tokens.grammar import structural_tag
from memserve.tokens.prompts import Prepared

FAMILIES = {family.name: family for family in calling.families()}


def _calling(name: str) -> calling.Calling:
    found = calling.of(Request(prompt="x", tools=(TOOL,)), FAMILIES[name], {})
    assert found is not None
    return found


def _pieces(name: str, pieces: list[str]) -> tuple[str, list[object]]:
    splitter, text = calling.CallSplitter(_calling(name)), ""
    for piece in pieces:
        text += splitter.push(piece)
    text += splitter.push("", last=True)
    return text, [json.loads(call.arguments) for call in splitter.calls]


@pytest.mark.parametrize(("name", "text", "before", "arguments"), TRANSCRIPTS)
def test_whole_and_cut_at_every_place(name: str, text: str, before: str, arguments: list[object]) -> None:
    wanted = (before, arguments)
    assert _pieces(name, [text]) == wanted
    assert _pieces(name, list(text)) == wanted
    for cut in range(len(text) + 1):
        assert _pieces(name, [text[:cut], text[cut:]]) == wanted, cut


def test_every_family_has_a_transcript() -> None:
    assert {row[0] for row in TRANSCRIPTS} == set(FAMILIES)


# The part of each family's template that writes calls, in words of our own.
XML = "{% for k, v in c.arguments.items() %}"
TEXT = "{{ v if v is string else v | tojson }}"
LOOP, END = "{% for t in calls %}{% set c = t.function %}", "{% endfor %}"
NAMED = '{"name": "{{ c.name }}", "%s": {{ c.arguments | tojson }}}'
LIST = LOOP + NAMED % "arguments" + "{{ '' if loop.last else ', ' }}" + END
PYTHON = (
    LOOP
    + "{{ c.name }}({% for k, v in c.arguments.items() %}{{ k }}={{ v | repr }}{{ '' if loop.last else ', ' }}"
)
PYTHON += "{% endfor %}){{ '' if loop.last else '@' }}" + END
TEMPLATES = {
    "hermes": LOOP + "<tool_call>\n" + NAMED % "arguments" + "\n</tool_call>\n" + END,
    "qwen3-coder": LOOP + "<tool_call>\n<function={{ c.name }}>\n" + XML + "<parameter={{ k }}>\n" + TEXT
    + "\n</parameter>\n{% endfor %}</function>\n</tool_call>\n" + END,
    "seed-oss": LOOP + "<seed:tool_call>\n<function={{ c.name }}>\n" + XML + "<parameter={{ k }}>" + TEXT
    + "</parameter>\n{% endfor %}</function>\n</seed:tool_call>" + END,
    "glm": LOOP + "<tool_call>{{ c.name }}" + XML + "\n<arg_key>{{ k }}</arg_key>\n<arg_value>" + TEXT
    + "</arg_value>{% endfor %}\n</tool_call>" + END,
    "minimax-m2": "<minimax:tool_call>\n" + LOOP + '<invoke name="{{ c.name }}">\n' + XML
    + '<parameter name="{{ k }}">' + TEXT + "</parameter>\n{% endfor %}</invoke>\n" + END + "</minimax:tool_call>",
    "dots": "<dots_function_call>\n" + LOOP + '<invoke name="{{ c.name }}">\n' + XML
    + '<parameter name="{{ k }}">' + TEXT + "</parameter>\n{% endfor %}</invoke>\n" + END + "</dots_function_call>",
    "deepseek-v3.2": "\n\n<｜DSML｜function_calls>" + LOOP + '\n<｜DSML｜invoke name="{{ c.name }}">\n' + XML
    + """<｜DSML｜parameter name="{{ k }}" string="{{ 'true' if v is string else 'false' }}">""" + TEXT
    + "</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>" + END + "\n</｜DSML｜function_calls>",
    "apertus": "<|tools_prefix|>[" + LOOP + '{"{{ c.name }}": {{ c.arguments | tojson }}}'
    + "{{ '' if loop.last else ', ' }}" + END + "]<|tools_suffix|>",
    "cohere": "<|START_ACTION|>[" + LOOP + '\n{"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ c.name }}", "parameters": '
    "{{ c.arguments | tojson }}}{{ '' if loop.last else ',' }}" + END + "\n]<|END_ACTION|>",
    "gemma-4": LOOP + "<|tool_call>call:{{ c.name }}{{ c.arguments | bare('<|\"|>') }}<tool_call|>" + END,
    "functiongemma": LOOP + "<start_function_call>call:{{ c.name }}{{ c.arguments | bare('<escape>') }}<end_function_call>" + END,
    "gigachat-3.1": LOOP + "<|function_call|>" + NAMED % "arguments" + END,
    "gigachat-3": LOOP + "function call<|role_sep|>\n" + NAMED % "arguments" + END,
    "lfm2": "{# List of tools: #}<|tool_call_start|>[" + PYTHON.replace("@", ", ") + "]<|tool_call_end|>",
    "olmo-3": "<function_calls>\n" + PYTHON.replace("@", "\\n") + "\n</function_calls>",
    "llama-4": "[" + PYTHON.replace("@", ", ") + "]{# func_name1( #}",
    "longcat": LOOP + "<longcat_tool_call>\n" + NAMED % "arguments" + "\n</longcat_tool_call>\n" + END,
    "minicpm-5": LOOP + '<function name="{{ c.name }}">' + XML + '<param name="{{ k }}">' + TEXT + "</param>{% endfor %}</function>" + END,
    "step-3": "<｜tool_calls_begin｜>" + LOOP + '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="{{ c.name }}">'
    + XML + '<steptml:parameter name="{{ k }}">' + TEXT + "</steptml:parameter>{% endfor %}</steptml:invoke><｜tool_call_end｜>"
    + END + "<｜tool_calls_end｜>",
    "deepseek-v4": "<｜DSML｜tool_calls>" + LOOP + '\n<｜DSML｜invoke name="{{ c.name }}">\n' + XML
    + """<｜DSML｜parameter name="{{ k }}" string="{{ 'true' if v is string else 'false' }}">""" + TEXT
    + "</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>" + END + "\n</｜DSML｜tool_calls>",
    "minimax-m1": "{# <end_of_sentence> #}<tool_calls>\n" + LOOP + NAMED % "arguments" + "\n" + END + "</tool_calls>",
    "kimi": "<|tool_calls_section_begin|>" + LOOP + "<|tool_call_begin|>{{ t.id }}<|tool_call_argument_begin|>"
    "{{ c.arguments | tojson }}<|tool_call_end|>" + END + "<|tool_calls_section_end|>",
    "deepseek-v3.1": "<｜tool▁calls▁begin｜>" + LOOP + "<｜tool▁call▁begin｜>{{ c.name }}<｜tool▁sep｜>"
    "{{ c.arguments | tojson }}<｜tool▁call▁end｜>" + END + "<｜tool▁calls▁end｜>",
    "deepseek-v3": "<｜tool▁calls▁begin｜>" + LOOP + "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.name }}\n"
    "```json\n{{ c.arguments | tojson }}\n```<｜tool▁call▁end｜>\n" + END + "<｜tool▁calls▁end｜>",
    "harmony": LOOP + " to=functions.{{ c.name }}<|channel|>commentary json<|message|>{{ c.arguments | tojson }}<|call|>"
    + END,
    "mistral-v11": LOOP + "[TOOL_CALLS]{{ c.name }}[ARGS]{{ c.arguments | tojson }}" + END,
    "mistral": "[TOOL_CALLS] [" + LIST + "]",
    "phi-4-mini": LOOP + "<|tool_call|>" + NAMED % "arguments" + "<|/tool_call|>" + END,
    "granite-3": "<|tool_call|>[" + LIST + "]",
    "nemotron": "<TOOLCALL>[" + LIST + "]</TOOLCALL>",
    "hunyuan": "<tool_calls>[" + LIST + "]</tool_calls>",
    "internlm": LOOP + "<|action_start|><|plugin|>\n" + NAMED % "parameters" + "<|action_end|>" + END,
    "granite-20b": LOOP + "<function_call> " + NAMED % "arguments" + END,
    "hunyuan-3": "<tool_calls:opensource>\n" + LOOP + "<tool_call:opensource>{{ c.name }}<tool_sep:opensource>\n" + XML
    + "<arg_key:opensource>{{ k }}</arg_key:opensource>\n<arg_value:opensource>" + TEXT + "</arg_value:opensource>\n{% endfor %}"
    "</tool_call:opensource>\n" + END + "</tool_calls:opensource>{# <tool_sep{}> #}",
    "xlam": "[" + LIST + "]{# tool_call_name xLAM #}",
    "llama-3": LOOP + NAMED % "parameters" + "{{ '' if loop.last else '; ' }}" + END,
}  # fmt: skip
TEMPLATES["gigachat-3.5"] = TEMPLATES["deepseek-v4"].replace("DSML", "GCML")
TEMPLATES["deepseek-v4.1"] = re.sub("｜(?=[a-z])", "｜ ", TEMPLATES["deepseek-v4"]).replace(
    "tool_calls", "calls"
)
WORLD = ImmutableSandboxedEnvironment()
WORLD.filters["repr"] = repr
WORLD.filters["bare"] = lambda value, quote: _bare(value, quote)
WORLD.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
# what marks an argument's end cannot stand in an argument that is written without quotes
PLAIN = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="<｜"), max_size=12)
ARGUMENTS = st.fixed_dictionaries({}, optional={
    "city": PLAIN, "days": st.integers(-10**9, 10**9), "tags": st.lists(PLAIN | st.integers(-9, 9) | st.none(), max_size=3),
    "more": st.dictionaries(PLAIN, st.booleans() | PLAIN, max_size=2),
})  # fmt: skip


def _bare(value: object, quote: str, *, nested: bool = False) -> str:
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, dict):
        keys = (f"{quote}{key}{quote}" if nested else key for key in value)
        parts = (
            f"{key}:{_bare(one, quote, nested=True)}" for key, one in zip(keys, value.values(), strict=True)
        )
        return "{" + ",".join(parts) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_bare(one, quote, nested=True) for one in value) + "]"
    return json.dumps(value)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=20)
@given(st.lists(ARGUMENTS, min_size=1, max_size=3))
@example([{"city": '"quoted" \' and }, ] [ {', "tags": ["a, b]", "}"], "more": {"</x>": ""}}, {}])
def test_calls_come_back_from_the_template_that_wrote_them(
    name: str, several: list[dict[str, object]]
) -> None:
    several = several[:1] if name == "harmony" else several  # one a turn
    calls = [{"id": f"functions.get_weather:{i}", "function": {"name": "get_weather", "arguments": one}}
             for i, one in enumerate(several)]  # fmt: skip
    text, found = calling.read(WORLD.from_string(TEMPLATES[name]).render(calls=calls), _calling(name))
    assert text == ""
    assert [json.loads(call.arguments) for call in found] == several
    assert {call.name for call in found} == {"get_weather"}
    assert len({call.id for call in found}) == len(found)


@given(st.sampled_from(sorted(FAMILIES)), st.data(), st.lists(st.integers(0, 200), max_size=6))
def test_pieces_never_change_what_comes_out(name: str, data: st.DataObject, cuts: list[int]) -> None:
    family = FAMILIES[name]
    calls = '{"name": "get_weather", "arguments": {}}', "get_weather", "{}", "[", "]", ", "
    words = st.sampled_from([*family.words, *calls, " ", "\n", "a", "<", family.triggers[0][:-1]])
    text = "".join(data.draw(st.lists(words, max_size=12)))
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert _pieces(name, [text[a:b] for a, b in pairwise(places)]) == _pieces(name, [text])


@pytest.mark.parametrize(("name", "call"), [("llama-3", '{"name'), ("xlam", '[{"name')])
def test_what_begins_like_calls_at_the_start_must_be_calls(name: str, call: str) -> None:
    request = Request(prompt="x", tools=(TOOL,))
    bound = structural_tag(request, Prepared([1], 9, calling=_calling(name)), thought=False)
    text = bound["format"]["elements"][-1]["pattern"]
    assert re.fullmatch(text, "Sure") and not re.fullmatch(text, call)


def test_text_is_streamed_where_no_call_can_begin() -> None:
    for name in FAMILIES:
        assert calling.CallSplitter(_calling(name)).push("Just a text. ") == "Just a text.", name


HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
DSML = ('<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Paris'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>")  # fmt: skip


@pytest.mark.parametrize(("name", "said", "thought", "text", "arguments"), [
    ("hermes", "Need it.\n" + HERMES, "Need it.", "", [CITY]),  # a call ends a thought that nothing closes
    ("hermes", "I think of <tool_call>.\n" + HERMES, "I think of", "<tool_call>.", [CITY]),
    ("deepseek-v3.2", "Need it.\n\n" + DSML, "Need it.", "", [CITY]),
    ("hermes", f"I may write {HERMES} here.\n</think>\n\nNo.", f"I may write {HERMES} here.", "No.", []),
    ("hermes", "I think of <tool_call> here.", "I think of <tool_call> here.", "", []),
    ("hermes", f"Need it.</think>\n\nSure.\n{HERMES}\nDone.", "Need it.", "Sure.\nDone.", [CITY]),
])  # fmt: skip
def test_a_call_in_a_thought(name: str, said: str, thought: str, text: str, arguments: list[object]) -> None:
    how = thinking.Thinking(next(one for one in thinking.families() if one.name == "think"))
    for cuts in ([], range(len(said)), *([cut] for cut in range(len(said)))):
        places = sorted({0, len(said), *cuts})
        told, found = Detokenizer(Pieces([said[a:b] for a, b in pairwise(places)]), (), live=True, thinking=how,
                                  inside=True, calling=_calling(name)), ["", ""]  # fmt: skip
        for token in range(len(places) - 1):
            told.push(token)
            found = [found[0] + told.fresh_thought(), found[1] + told.fresh(last=False)]
        last = told.last("stop", None)
        assert (found[0] + (last.reasoning or ""), found[1] + last.text) == (thought, text), cuts
        assert [json.loads(call.arguments) for call in last.tool_calls] == arguments


class Pieces:
    """A tokenizer whose tokens are these texts."""

    bos_token_id = eos_token_id = None

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(self._pieces[token] for token in ids)


@pytest.mark.parametrize("value", ["3J", "b'x'", "{1, 2}", "...", "1e999", "[NaN]", "{(1, 2): 3}"])
def test_arguments_are_values_of_json(value: str) -> None:
    told = reader.loads(value, value)
    assert told == value
    for name, text in TEMPLATES.items():
        calls = [
            {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": {"city": value}}}
        ]
        said = WORLD.from_string(text).render(calls=calls).replace(json.dumps(value), value)
        for call in calling.read(said, _calling(name))[1]:
            json.loads(call.arguments)


@pytest.mark.parametrize("left_out", [{}, {"parameters": None}])
def test_a_function_that_takes_nothing_says_so_to_its_template(left_out: dict[str, None]) -> None:
    tool = {"type": "function", "function": {"name": "now", **left_out}}
    reads = "{% for tool in tools %}{{ tool.function.parameters.properties | length }}{% endfor %}"
    assert WORLD.from_string(reads).render(**calling.offered([tool])) == "0"
    assert calling.offered([TOOL])["tools"] == [TOOL]


def test_which_tools_may_be_called() -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    asked = {choice: calling.of(Request(prompt="x", tools=(TOOL,), tool_choice=choice), FAMILIES["hermes"], {})
             for choice in ("auto", "none", "required")}  # fmt: skip
    assert asked["none"] is None
    assert [asked[one].forced for one in ("auto", "required")] == [False, True]
    one = calling.of(Request(prompt="x", tools=(TOOL,), tool_choice=named), FAMILIES["hermes"], {})
    assert (one.forced, one.once) == (True, True)


@pytest.mark.parametrize(("tool", "choice"), [
    ({"name": "f"}, None), ({"type": "web_search"}, None), ({"type": "function", "function": {"name": "a b"}}, None),
    ({"type": "function", "function": {"name": "f", "parameters": []}}, None), (TOOL, "sometimes"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(tool: dict[str, object], choice: object) -> None:
    request = Request(prompt="x", tools=(tool,), tool_choice=choice)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        calling.of(request, FAMILIES["hermes"], {})


def _render(text: str, tools: str = "memserve_probe") -> Callable[..., str]:
    """What a template writes of tools, or of a call."""

    def rendered(_: object, messages: list[dict[str, object]] | None = None) -> str:
        return WORLD.from_string(text).render(calls=messages[1]["tool_calls"]) if messages else tools

    return rendered


def test_a_familys_marks_stand_in_its_template() -> None:
    for name, text in TEMPLATES.items():
        more = " tools ipython" + ("[ARGS]" if name == "mistral-v11" else "")
        assert calling.find(text + more, _render(text)) is FAMILIES[name], name
        assert calling.find(text + more, _render(text, "no tools in it")) is None
    assert calling.find("{{ messages }}", _render("")) is None


def test_a_template_that_writes_calls_in_another_way_is_not_taken_for_a_family() -> None:
    text = LOOP + "<tool_call>\n<call of={{ c.name }}>{{ c.arguments.said }}</call></tool_call>" + END
    assert calling.find(text + " tools", _render(text)) is None


@pytest.mark.parametrize(("said", "thought", "text", "arguments"), GPT_OSS)
def test_a_call_after_a_thought_of_gpt_oss(
    said: str, thought: str, text: str, arguments: list[object]
) -> None:
    family = next(one for one in thinking.families() if one.name == "harmony")
    for pieces in ([said], list(said), *([said[:cut], said[cut:]] for cut in range(len(said)))):
        thoughts, calls, found = (
            thinking.ThoughtSplitter(family, inside=False),
            calling.CallSplitter(_calling("harmony")),
            ["", ""],
        )
        for number, piece in enumerate([*pieces, ""]):
            last = number == len(pieces)
            more, answer = thoughts.push(piece, last=last)
            found[0] += more
            found[1] += calls.push(answer, last=last)
        assert (*found, [json.loads(call.arguments) for call in calls.calls]) == (thought, text, arguments), (
            pieces
        )


def test_a_broken_call_is_given_up_where_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, tried = ast.parse, list[str]()

    def counted(words: str, **how: str) -> ast.AST:
        tried.append(words)
        return parse(words, **how)  # type: ignore[no-any-return,call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(ast, "parse", counted)
        found = reader.python("a>) " + "and more) " * 500, 0)
    assert found is None and len(tried) < 5
    text = "a='it) is', b=[\"x)\"]"
    assert reader.python(text + ") and more)", 0) == ({"a": "it) is", "b": ["x)"]}, len(text))
