"""Requests that share a prefix meet; the others keep their places."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from memserve.protocol import Raw
from memserve.run import run
from memserve.run.requests import arrange, read_item, shared_prefix

PARTS = st.lists(st.sampled_from(["a" * 600, "b" * 600, "c" * 100, "d"]), max_size=5)


def items(prompts):
    return [read_item(prompt, index, {}) for index, prompt in enumerate(prompts)]


def prompts(found):
    return [one.request.prompt for one in found]


@given(st.lists(PARTS.map("".join), max_size=30))
def test_nothing_is_lost_and_prefixes_meet(texts):
    arranged = prompts(arrange(items(texts)))
    assert sorted(arranged) == sorted(texts)
    heads = [text[:512] for text in arranged if len(text) >= 512]
    assert all(
        heads.index(head) + heads.count(head) == len(heads) - heads[::-1].index(head) for head in heads
    )


@given(st.lists(st.text("ab", max_size=300), max_size=20), st.integers(0, 5))
def test_the_shared_prefix_is_the_longest(tails, known):
    texts = ["x" * 700 + tail for tail in tails] + ["x" * 700 + "ab" * 150]
    length = shared_prefix(texts, known)
    assert len({text[:length] for text in texts}) == 1
    assert len({text[: length + 1] for text in texts}) > 1 or length == min(map(len, texts))


def test_short_prompts_keep_their_order():
    asked = [f"prompt {n}" for n in (3, 1, 2, 1)]
    assert prompts(arrange(items(asked))) == asked


def test_conversations_under_one_system_prompt_are_told_apart():
    system = "You are a careful reader. " * 60
    talks = [f"{system}conversation {n}: " + f"talk {n} " * 200 for n in range(3)]
    asked = [talks[n % 3] + f"question {n}" for n in range(12)]
    found = prompts(arrange(items(asked)))
    assert [text.split("conversation ")[1][0] for text in found] == list("000011112222")


def test_messages_raw_text_and_token_ids_are_ordered_too():
    long = [{"role": "user", "content": "z" * 600}]
    asked = [
        long,
        "short",
        [*long, {"role": "user", "content": "q"}],
        Raw("r" * 600),
        list(range(600)),
        "t",
        Raw("r" * 601),
    ]
    found = prompts(arrange(items(asked)))
    assert found[:2] == [asked[0], asked[2]]
    assert found.index(asked[6]) == found.index(asked[3]) + 1
    assert len(found) == len(asked)


def test_a_prefix_cache_of_one_slot_hits_with_grouping_and_misses_without(fake, tmp_path):
    talks = [f"{n}" + "history " * 300 for n in range(8)]
    asked = [talks[n % 8] + str(n) for n in range(160)]

    def hits(how):
        generator = fake()
        run(asked, tmp_path / f"{how}.jsonl", generator=generator, order=how, concurrency=1)
        last, found = deque([""], maxlen=1), 0
        for prompt in generator.asked:
            found += last[0][:1] == prompt[:1]
            last.append(prompt)
        return found

    assert hits("prefix") >= 140
    assert hits("given") == 0
