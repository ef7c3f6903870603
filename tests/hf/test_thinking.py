"""Thinking on a real model: budgets end the thought, settings of the answer leave the thought alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine("hf")

BEGIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}assistant "
)
ALWAYS = BEGIN + "<think> "
HYBRID = BEGIN + "{% if enable_thinking is false %}<think> </think> {% else %}<think> {% endif %}"


def _model(folder: Path, template: str) -> Path:
    import tiny_hf

    plain = len(tiny_hf.tokenizer(folder, template=template))
    made = tiny_hf.causal(folder, template=template, vocab_size=plain + 2)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memserve.client.Generator]:
    folder = _model(tmp_path_factory.mktemp("always"), ALWAYS)
    with memserve.generator(str(folder), backend="hf", dtype="float32") as model:
        yield model


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memserve.client.Generator]:
    folder = _model(tmp_path_factory.mktemp("hybrid"), HYBRID)
    with memserve.generator(str(folder), backend="hf", dtype="float32") as model:
        yield model


@pytest.fixture(scope="module")
def question(always) -> str:
    """One on which the random model does not end by itself."""
    import tiny_hf

    answers = {word: always.generate(word, thinking=20, max_tokens=20) for word in tiny_hf.WORDS}
    return next(word for word, answer in answers.items() if answer.finish_reason == "length" and answer.text)


def test_a_budget_ends_the_thought_and_the_answer_follows(always, question):
    for budget in (1, 5, 17):
        answer = always.generate(question, thinking=budget, max_tokens=8)
        assert answer.text
        assert "</think>" not in f"{answer.reasoning} {answer.text}"
        assert budget <= answer.usage.reasoning_tokens <= budget + 3
        assert answer.usage.completion_tokens <= budget + 8


def test_streamed_as_whole(always):
    asked = {"thinking": 6, "max_tokens": 6}
    whole = always.generate("seven lamps", **asked)
    pieces = list(always.stream("seven lamps", **asked))
    assert "".join(piece.reasoning for piece in pieces) == whole.reasoning
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].usage == whole.usage


def test_a_thought_that_does_not_end_leaves_no_text(always):
    answer = always.generate("a window", max_tokens=4)
    assert answer.finish_reason == "length"
    assert answer.text is None
    assert answer.reasoning
    assert answer.usage.reasoning_tokens == 4


def test_a_grammar_binds_the_answer_alone(always, question):
    answer = always.generate(question, thinking=5, choices=["river", "bridge"], max_tokens=8)
    assert answer.text in ("river", "bridge")
    assert answer.reasoning


def test_a_stop_string_in_the_thought_stops_nothing(always, question):
    plain = always.generate(question, thinking=9, max_tokens=6)
    word = plain.reasoning.split()[0]
    stopped = always.generate(question, thinking=9, max_tokens=6, stop=[word])
    assert stopped.reasoning == plain.reasoning
    assert word not in stopped.text


def test_samples_think_apart(always):
    answer = always.generate("old", thinking=3, max_tokens=4, n=3, temperature=1.0, seed=1)
    assert [bool(sample.reasoning) for sample in answer.samples] == [True] * 3


def test_off_means_off(hybrid):
    off = hybrid.generate("the bridge", thinking=False, max_tokens=5)
    assert (off.reasoning, off.usage.reasoning_tokens) == (None, None)
    assert off.text
    on = hybrid.generate("the bridge", thinking=True, max_tokens=5)
    assert on.reasoning
    assert hybrid.generate("the bridge", max_tokens=5) == on
    by_hand = hybrid.generate("the bridge", template={"enable_thinking": False}, max_tokens=5)
    assert by_hand == off


def test_what_cannot_be_is_refused(always):
    with pytest.raises(Unsupported, match="thinking"):
        always.generate("old", thinking=False)


def test_raw_text_is_left_as_it_is(always):
    assert always.generate(memserve.Raw("the old river"), max_tokens=5).reasoning is None
