"""Thought and answer come apart, whole and cut at every place, for every family of the table."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.tokens.thinking import Family, ThoughtSplitter, families, find

FAMILIES = {family.name: family for family in families()}
# Family, what the model writes, whether its template opened the thought, thought, answer.
TRANSCRIPTS = [
    ("think", "<think>\nOkay, France.\n</think>\n\nParis", False, "Okay, France.", "Paris"),  # Qwen3, GLM-4.5
    ("think", "<think>\n\n</think>\n\nParis", False, None, "Paris"),  # Qwen3 told not to think
    ("think", "Okay, France.\n</think>\n\nParis", True, "Okay, France.", "Paris"),  # DeepSeek-R1, QwQ
    ("think", "Hm.</think>Grüße aus 東京 🙂", True, "Hm.", "Grüße aus 東京 🙂"),  # DeepSeek-V3.1
    ("think", "First.\n\nSecond <b> line.\n</think>\nA </think> B", True,
     "First.\n\nSecond <b> line.", "A </think> B"),  # MiniMax-M2
    ("think", "I write about <think> and </think>.", False, None, "I write about <think> and </think>."),
    ("think", "<think>never ends", False, "never ends", ""),
    ("think", "<think>\nOkay.\n</think>\n\nParis", True, "Okay.", "Paris"),  # the template's tag, said again
    ("think", "Okay.\n</think>\n\n</think>\n\nParis", True, "Okay.", "Paris"),  # ended for it, and by itself
    ("think", "</think>Paris", True, None, "Paris"),
    ("harmony", "<|channel|>analysis<|message|>A.<|end|><|start|>assistant<|channel|>analysis<|message|>B."
     "<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
     "<|channel|>final<|message|>Paris", False,
     "A.\nB.", "I look.\nParis"),
    ("harmony", "<|channel|>analysis<|message|>Simple.<|end|><|start|>assistant"
     "<|channel|>final<|message|>Paris", False, "Simple.", "Paris"),  # gpt-oss
    ("gemma", "<|channel>thought\nWhere is it?\n<channel|>Paris", False, "Where is it?", "Paris"),
    ("seed", "<seed:think>\nHm\n</seed:think>\nParis", False, "Hm", "Paris"),
    ("mistral", "[THINK]Let me see.[/THINK]Paris", False, "Let me see.", "Paris"),
    ("kimi", "◁think▷Let me see.◁/think▷Paris", False, "Let me see.", "Paris"),
    ("granite", "Here is my thought process: easy.\n\nHere is my response: Paris", False, "easy.", "Paris"),
    ("harmony", "<|channel|>final<|message|>Paris", False, None, "Paris"),
    ("response", "<think>Easy.</think><response>Paris</response>", False, "Easy.", "Paris"),  # Granite 3.3
    ("response", "Easy.\n</think>\nParis", True, "Easy.", "Paris"),  # Ernie 4.5
    ("cohere", "<|START_THINKING|>Easy.<|END_THINKING|><|START_RESPONSE|>Paris<|END_RESPONSE|>", False,
     "Easy.", "Paris"),
    ("cohere", "<|START_TEXT|>Paris<|END_TEXT|>", False, None, "Paris"),
    ("apertus", "<|inner_prefix|>Easy.<|inner_suffix|>Paris", False, "Easy.", "Paris"),
    ("hunyuan-3", "<think:opensource>Easy.</think:opensource>Paris", False, "Easy.", "Paris"),
    ("minimax-m3", "<mm:think>Easy.</mm:think>Paris", False, "Easy.", "Paris"),
    ("apriel", "Here are my reasoning steps:\nEasy.\n[BEGIN FINAL RESPONSE]\nParis\n[END FINAL RESPONSE]",
     False, "Easy.", "Paris"),
    ("minimax-m2", "Easy.\n</think>\n\n<response>a tag</response> of XML", True,
     "Easy.", "<response>a tag</response> of XML"),
    ("exaone-deep", "Easy.\n</thought>\n\nParis", True, "Easy.", "Paris"),
    ("hunyuan", "<think>\nEasy.\n</think>\n<answer>\nParis\n</answer>", False, "Easy.", "Paris"),
]  # fmt: skip


def split(text: str, family: Family, *, inside: bool) -> tuple[str | None, str]:
    thought, answer = ThoughtSplitter(family, inside=inside).push(text, last=True)
    return thought or None, answer


def _pieces(name: str, pieces: list[str], inside: bool) -> tuple[str | None, str]:
    splitter, thought, answer = ThoughtSplitter(FAMILIES[name], inside=inside), "", ""
    for piece in pieces:
        more, text = splitter.push(piece)
        thought, answer = thought + more, answer + text
    more, text = splitter.push("", last=True)
    return (thought + more) or None, answer + text


@pytest.mark.parametrize(("name", "text", "inside", "thought", "answer"), TRANSCRIPTS)
def test_whole_and_cut_at_every_place(name: str, text: str, inside: bool, thought: str, answer: str) -> None:
    assert split(text, FAMILIES[name], inside=inside) == (thought, answer)
    assert _pieces(name, list(text), inside) == (thought, answer)
    for cut in range(len(text) + 1):
        assert _pieces(name, [text[:cut], text[cut:]], inside) == (thought, answer), cut


def test_every_family_has_a_transcript() -> None:
    assert {row[0] for row in TRANSCRIPTS} == set(FAMILIES)


@given(st.sampled_from(sorted(FAMILIES)), st.data(), st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_pieces_never_change_what_comes_out(
    name: str, data: st.DataObject, cuts: list[int], inside: bool
) -> None:
    family = FAMILIES[name]
    words = st.sampled_from([*family.marks, " ", "\n", "a", "b.", family.open[:-1], family.closes[0][1:]])
    text = "".join(data.draw(st.lists(words, max_size=12)))
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert _pieces(name, pieces, inside) == split(text, family, inside=inside)


class Tokenizer:
    """Characters as tokens; the tags are special."""

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(sign) for sign in text]

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))


TEMPLATES = {
    "hybrid, on unless switched off": (
        lambda v: "<u>hi<a>" + ("" if v.get("enable_thinking", True) else "<think>\n\n</think>\n\n"),
        "{% if enable_thinking is false %}<think>{% endif %}", {"on", "off", "budget"}, True,
    ),
    "hybrid, off unless switched on": (
        lambda v: "<u>hi<a>" + ("<think>" if v.get("thinking", False) else "</think>"),
        "{% if thinking %}<think>{% else %}</think>{% endif %}", {"on", "off", "budget"}, False,
    ),
    "always": (lambda v: "<u>hi<a><think>\n", "<a><think>\n", {"on", "budget"}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_how_a_checkpoint_thinks_is_found_in_its_template(name: str) -> None:
    render, template, modes, default = TEMPLATES[name]
    found = find(template, render, Tokenizer())
    assert found is not None
    assert (found.modes, found.default) == (modes, default)
    assert found.opened(render(found.variables(True))) == (name != "hybrid, on unless switched off")


def test_a_template_without_tags_does_not_think() -> None:
    assert find("{{ messages }}", lambda v: "hi", Tokenizer()) is None
