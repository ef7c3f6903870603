"""Cache marks: at the prefix that requests share, written once, and paid as quoted."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.protocol import Capabilities, Completion, Usage
from memserve.run import run
from memserve.run.prefixes import SharedPrefixes, marked
from memserve.run.requests import read_item
from memserve.speed import prices
from memserve.speed.workloads import Workload, ask

HISTORIES, QUESTIONS, LENGTH = 4, 25, 20_000
MODEL = "claude-haiku-4-5-20251001"


class Provider:
    """Counts a token for four signs, and keeps what is marked, once the answer is there."""

    capabilities = Capabilities(backend="anthropic", model=MODEL, cache_marks=4096)

    def __init__(self, seconds=0.01):
        self.kept, self.seconds, self.seen = set(), seconds, []

    async def agenerate(self, prompt, **settings):
        parts = [prompt] if isinstance(prompt, str) else [p for m in prompt for p in _parts(m["content"])]
        self.seen.append(prompt)
        texts = [part if isinstance(part, str) else part["text"] for part in parts]
        ends = [n for n, part in enumerate(parts, 1) if isinstance(part, dict) and "cache_control" in part]
        prefix = "".join(texts[: ends[-1]]) if ends else ""
        hit = prefix in self.kept
        await asyncio.sleep(self.seconds)
        self.kept.add(prefix)
        total, held = len("".join(texts)) // 4, len(prefix) // 4
        usage = Usage(total, 10, held if hit else 0, written_tokens=0 if hit else held)
        return Completion(text="yes", finish_reason="stop", usage=usage, model=MODEL)


def _parts(content):
    return [content] if isinstance(content, str) else content


def history(number):
    return "".join(f"{number} said {word}. " for word in range(LENGTH // 12))[:LENGTH]


def questions():
    texts = [history(number) for number in range(HISTORIES)]
    return [{"id": f"{h}-{q}", "prompt": f"{texts[h]}\n\nQuestion {q}: what of {q * 7}?"}
            for q in range(QUESTIONS) for h in range(HISTORIES)]  # fmt: skip


def test_the_paid_price_is_the_quoted_price(out):
    provider, price = Provider(), prices.of(MODEL, "anthropic")
    summary = run(questions(), out, generator=provider, concurrency=64, progress=False)
    words = len("\n\nQuestion 10: what of 70?") / 4
    wanted = Workload("x", HISTORIES * QUESTIONS, words, 10.0, LENGTH / 4, QUESTIONS)
    assert summary.done == HISTORIES * QUESTIONS
    assert len(provider.kept) == HISTORIES, "each prefix was written once, whatever was in flight"
    assert summary.usd == pytest.approx(ask(wanted, price).usd[1], rel=0.02)


@pytest.mark.slow
def test_the_words_stay_and_marks_can_be_left_out(out):
    provider = Provider()
    run(questions(), out, generator=provider, progress=False)
    said = {"".join(part["text"] for part in prompt[0]["content"]) for prompt in provider.seen}
    assert said == {question["prompt"] for question in questions()}
    plain = Provider()
    run(questions()[:8], out.with_name("b.jsonl"), generator=plain, cache_marks=False, progress=False)
    assert all(isinstance(prompt, str) for prompt in plain.seen)


def test_a_writer_that_fails_lets_another_write(out):
    class Failing(Provider):
        async def agenerate(self, prompt, **settings):
            if len(self.seen) == 0:
                self.seen.append(prompt)
                raise ValueError("no")
            return await super().agenerate(prompt, **settings)

    summary = run(questions(), out, generator=Failing(), progress=False)
    assert (summary.done, summary.failed) == (HISTORIES * QUESTIONS - 1, 1)


def items(prompts):
    return [read_item({"id": n, "prompt": prompt}, n, {}) for n, prompt in enumerate(prompts)]


def test_marks_by_hand_and_short_prefixes_stay_as_they_are():
    part = {"type": "text", "text": "x" * 900, "cache_control": {"type": "ephemeral"}}
    own = [[{"role": "user", "content": [part, {"type": "text", "text": str(n)}]}] for n in range(3)]
    for prompts in (own, ["a b " * 20 + str(n) for n in range(3)], ["x" * 900 + "1"]):
        assert [item.request.prompt for item in SharedPrefixes(100).mark(items(prompts))] == prompts


def test_a_system_message_is_marked_where_the_questions_differ():
    above = {"role": "system", "content": "word " * 200}
    talks = [[above, {"role": "user", "content": f"q{n}"}] for n in range(3)]
    found = SharedPrefixes(100).mark(items(talks))
    marks = [item.request.prompt[0]["content"][0]["cache_control"] for item in found]
    assert marks == [{"type": "ephemeral"}] * 3
    assert len({item.prefix for item in found}) == 1


words = st.text(min_size=1, max_size=40)


@given(st.lists(words, min_size=1, max_size=4), st.data())
def test_a_mark_changes_no_word(texts, data):
    prompt = [{"role": "user", "content": text} for text in texts]
    ends = data.draw(st.integers(1, len("\0".join(texts))))
    found = marked(prompt, ends)
    if found is not None:
        said = ["".join(_text(part) for part in _parts(message["content"])) for message in found]
        assert said == texts
        assert sum("cache_control" in part for m in found for part in _parts(m["content"])) == 1


def _text(part):
    return part if isinstance(part, str) else part["text"]
