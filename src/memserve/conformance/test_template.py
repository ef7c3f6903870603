"""Prompts become the tokens they should: the checkpoint's own template, and exactly one BOS."""

from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, limited, need, question, said

TALK = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Elbe."},
    {"role": "user", "content": "And another one?"},
]


LONG = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}: " + " lamp" * n} for n in range(9)]
TOLD = [{"role": "system", "content": "Be brief."}, *TALK]
SPACED = [{"role": "user", "content": "  Two  spaces,\n\n\ta tab \u2460 \ufb01sh \u00c5 "}]


def _ids(oracle: Any, messages: list[dict[str, str]]) -> list[int]:
    ids = oracle.chat(messages) if oracle else None
    if ids is None:
        pytest.skip("capability chat: no template to compare with beside this model")
    return list(ids)


def _system(generator: Any, oracle: Any) -> None:
    """Skip where the model's own template refuses a system role."""
    try:
        answer(generator, TOLD, 1)
    except memserve.errors.InvalidInput:
        if oracle and oracle.takes(TOLD):
            raise
        pytest.skip("capability chat: this model's template knows no system role")


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


@pytest.mark.parametrize("talk", [LONG, TOLD, SPACED], ids=["long", "system", "spaced"])
def test_every_word_and_role_reaches_the_model(generator: Any, can: Any, oracle: Any, talk: Any) -> None:
    need(can, "chat", "usage")
    if talk is TOLD:
        _system(generator, oracle)
    ids = _ids(oracle, talk)
    got = answer(generator, talk, 8)
    assert got.usage.prompt_tokens == len(ids)
    if can.token_ids and can.deterministic:
        assert said(got) == said(answer(generator, ids, 8))


def test_parts_of_text_are_all_read(generator: Any, can: Any) -> None:
    need(can, "chat", "usage")
    parts = [
        {"type": "text", "text": text} for text in ("Name a river", " that runs past seven stone bridges.")
    ]
    talks = [[{"role": "user", "content": some}] for some in (parts[:1], parts)]
    try:
        one, both = (answer(generator, talk, 2).usage.prompt_tokens for talk in talks)
    except memserve.errors.InvalidInput:
        pytest.skip("capability chat: content in parts is refused")
    assert both >= one + 3


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
    assert by_ids.usage.prompt_tokens in (len(ids), None)
    assert by_ids.text == by_talk.text


def test_token_ids_are_not_tidied(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "token_ids", "usage")
    lists = [[5, 5, 5, 9, 9, 5, 5], [30, 31, 32, 33]]
    if oracle and oracle.bos is not None:
        lists += [[oracle.bos, 30, 31], [oracle.bos, oracle.bos, 30, 31]]
    counts = [one.usage.prompt_tokens for one in answer(generator, lists, 2)]
    assert counts == [len(ids) for ids in lists]


def test_raw_text_has_no_template(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "raw", "chat", "usage")
    text = question(3)
    raw, chat = answer(generator, [memserve.Raw(text), text], 2)
    assert raw.usage.prompt_tokens <= chat.usage.prompt_tokens
    if oracle and oracle.chat([{"role": "user", "content": text}]) not in (None, oracle.encode(text)):
        prompts = [[memserve.Raw(question(n)), question(n)] for n in range(6)]
        pairs = [answer(generator, pair, 8) for pair in prompts]
        assert any(said(one) != said(other) for one, other in pairs)


def test_raw_text_is_tokenized_as_the_checkpoint_does(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "raw", "usage")
    text = "The capital of France is"
    expected = len(oracle.encode(text)) if oracle else 0
    got = answer(generator, memserve.Raw(text), 2).usage.prompt_tokens
    assert got == expected if oracle else got >= 1


@pytest.mark.parametrize(
    "text", ["  two spaces before", "a space after ", "a\n\nline\n", "\u2460 \ufb01sh \u00c5", "a\tb\r\nc"]
)
def test_raw_text_is_not_tidied(generator: Any, can: Any, oracle: Any, text: str) -> None:
    need(can, "raw", "usage")
    if oracle is None:
        pytest.skip("capability raw: no tokenizer to compare with beside this model")
    got = answer(generator, memserve.Raw(text), 6)
    assert got.usage.prompt_tokens == len(oracle.encode(text))
    if can.token_ids and can.deterministic:
        assert said(got) == said(answer(generator, oracle.encode(text), 6))


def test_raw_text_never_gets_a_second_bos(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "raw", "usage")
    if oracle is None:
        pytest.skip("capability raw: no tokenizer to compare with beside this model")
    text = oracle.special.get("bos_token", "") + "once upon a time"
    assert answer(generator, memserve.Raw(text), 2).usage.prompt_tokens == len(oracle.encode(text))


def test_roles_reach_the_model(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "chat", "usage")
    user = {"role": "user", "content": "Go."}
    _system(generator, oracle)
    brief = [{"role": "system", "content": "Be brief."}, user]
    told = [{"role": "system", "content": "Answer in one short word, please, and never in more."}, user]
    turned = [*told, {"role": "assistant", "content": "Gone."}, user]
    counts = [one.usage.prompt_tokens for one in answer(generator, [brief, told, turned], 2)]
    assert counts == sorted(set(counts))


def test_empty_messages_are_refused(generator: Any, can: Any) -> None:
    need(can, "chat")
    with pytest.raises(memserve.errors.InvalidInput):
        generator.generate([{"content": "who says this?"}], **limited(can, 2, {}))
