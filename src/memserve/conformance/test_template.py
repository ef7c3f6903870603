"""Prompts become the tokens they should: the checkpoint's own template, and exactly one BOS."""

from __future__ import annotations

from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, need, question

TALK = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Elbe."},
    {"role": "user", "content": "And another one?"},
]


def _ids(oracle: Any, messages: list[dict[str, str]]) -> list[int]:
    ids = oracle.chat(messages) if oracle else None
    if ids is None:
        pytest.skip("capability chat: no template to compare with beside this model")
    return list(ids)


def test_a_string_is_one_user_message(generator: Any, can: Any) -> None:
    need(can, "chat")
    text = question(1)
    plain, message = answer(generator, [text, [{"role": "user", "content": text}]], 6)
    assert plain.usage.prompt_tokens == message.usage.prompt_tokens
    if can.deterministic:
        assert plain.text == message.text


def test_a_conversation_becomes_the_checkpoints_template(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "chat", "usage")
    assert answer(generator, TALK, 2).usage.prompt_tokens == len(_ids(oracle, TALK))


def test_a_template_brings_at_most_one_bos(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "chat", "usage")
    messages = [{"role": "user", "content": question(2)}]
    ids = _ids(oracle, messages)
    assert oracle.bos is None or ids[:2] != [oracle.bos, oracle.bos]
    assert answer(generator, messages, 2).usage.prompt_tokens == len(ids)


def test_token_ids_go_to_the_model_as_they_are(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "token_ids", "chat", "deterministic")
    ids = _ids(oracle, TALK)
    by_ids, by_talk = answer(generator, ids, 8), answer(generator, TALK, 8)
    assert by_ids.usage.prompt_tokens == len(ids)
    assert by_ids.text == by_talk.text


def test_raw_text_has_no_template(generator: Any, can: Any) -> None:
    need(can, "raw", "chat", "usage")
    text = question(3)
    raw, chat = answer(generator, [memserve.Raw(text), text], 2)
    assert raw.usage.prompt_tokens <= chat.usage.prompt_tokens
    if can.deterministic and can.logprobs:
        raw, chat = answer(generator, [memserve.Raw(text), text], 6, logprobs=0)
        same = [x.logprob for x in raw.logprobs] == [x.logprob for x in chat.logprobs]
        assert not same or raw.usage.prompt_tokens == chat.usage.prompt_tokens


def test_raw_text_is_tokenized_as_the_checkpoint_does(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "raw", "usage")
    text = "The capital of France is"
    expected = len(oracle.encode(text)) if oracle else 0
    got = answer(generator, memserve.Raw(text), 2).usage.prompt_tokens
    assert got == expected if oracle else got >= 1


def test_raw_text_never_gets_a_second_bos(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "raw", "usage")
    if oracle is None:
        pytest.skip("capability raw: no tokenizer to compare with beside this model")
    text = oracle.special.get("bos_token", "") + "once upon a time"
    assert answer(generator, memserve.Raw(text), 2).usage.prompt_tokens == len(oracle.encode(text))


def test_roles_reach_the_model(generator: Any, can: Any) -> None:
    need(can, "chat", "usage")
    user = {"role": "user", "content": "Go."}
    brief = [{"role": "system", "content": "Be brief."}, user]
    told = [{"role": "system", "content": "Answer in one short word, please, and never in more."}, user]
    turned = [*told, {"role": "assistant", "content": "Gone."}, user]
    counts = [one.usage.prompt_tokens for one in answer(generator, [brief, told, turned], 2)]
    assert counts == sorted(set(counts))


def test_empty_messages_are_refused(generator: Any, can: Any) -> None:
    need(can, "chat")
    with pytest.raises(memserve.errors.InvalidInput):
        generator.generate([{"content": "who says this?"}], max_tokens=2)
