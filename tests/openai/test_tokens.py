"""vLLM lends its tokenizer: counting, cutting a prompt to the context, scoring."""

from __future__ import annotations

import pytest
from faulty_server import ANSWER, reply

from memserve import Raw, errors

LIMIT = 32
TEMPLATE = 3


def ids_of(text, special=True):
    return [1] * special + [ord(letter) for letter in text]


@pytest.fixture
def vllm(server, open_generator):
    """A server whose tokens are letters, with a BOS of 1 and a template of three tokens a message."""

    async def act(wire):
        post = server.posts[-1]
        await reply(200, ROUTES[post.path](post.json))(wire)

    server.will(act)
    return open_generator(dialect="vllm")


def tokenize(body):
    if "messages" in body:
        count = sum(len(message["content"]) + TEMPLATE for message in body["messages"])
        return {"count": count, "max_model_len": LIMIT, "tokens": [0] * count}
    ids = ids_of(body["prompt"], body.get("add_special_tokens", True))
    return {"count": len(ids), "max_model_len": LIMIT, "tokens": ids}


def detokenize(body):
    return {"prompt": "".join(map(chr, body["tokens"]))}


def completions(body):
    prompt = body["prompt"]
    if not body.get("echo"):
        return {"choices": [{"text": str(prompt), "finish_reason": "stop"}]}
    values = [None, *(-float(i) for i in range(1, len(prompt))), -99.0]
    rivals = [None, *({"x": -float(i) + (i == 5)} for i in range(1, len(prompt))), {}]
    return {"choices": [{"text": "", "logprobs": {"token_logprobs": values, "top_logprobs": rivals}}]}


def chat(body):
    message = {"role": "assistant", "content": body["messages"][-1]["content"]}
    return {**ANSWER, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


ROUTES = {
    "/tokenize": tokenize,
    "/detokenize": detokenize,
    "/v1/completions": completions,
    "/v1/chat/completions": chat,
}


def test_tokens_are_counted_as_they_will_be_sent(vllm):
    assert vllm.count_tokens("abc") == 3 + TEMPLATE
    assert vllm.count_tokens(Raw("abc")) == 4
    assert vllm.count_tokens([5, 6]) == 2


@pytest.mark.parametrize(
    ("policy", "wanted"), [("left", "opqrstuvwxyz0123456789!!!"), ("middle", "abcdefghijklm123456789!!!")]
)
def test_a_long_message_is_cut_where_the_caller_says(policy, wanted, vllm):
    text = "abcdefghijklmnopqrstuvwxyz0123456789!!!"
    assert vllm.generate(text, max_tokens=4, truncate=policy).text == wanted


def test_the_longest_message_is_cut(vllm):
    talk = [{"role": "user", "content": "x" * 40}, {"role": "user", "content": "short"}]
    assert vllm.generate(talk, max_tokens=4, truncate="left").text == "short"


def test_raw_text_and_ids_are_cut_to_the_token(vllm):
    assert vllm.generate(Raw("x" * 50 + "end"), max_tokens=29, truncate="left").text == str(
        ids_of("end", False)
    )
    assert vllm.generate(list(range(50)), max_tokens=30, truncate="left").text == "[48, 49]"


def test_what_fits_stays(vllm):
    assert vllm.generate("abc", max_tokens=4, truncate="left").text == "abc"


def test_no_room_for_a_prompt(vllm):
    with pytest.raises(errors.ContextOverflow):
        vllm.generate("abc", max_tokens=40, truncate="left")


def test_the_score_is_that_of_the_continuation(vllm):
    first, second = vllm.score([("ab", "cd"), ("ab ", "cd")])
    assert (first.logprob, first.tokens, first.greedy) == (-3.0 - 4.0, 2, True)
    assert (second.logprob, second.tokens, second.greedy) == (-3.0 - 4.0 - 5.0, 3, False)
    assert vllm.score([]) == []


def test_ids_and_messages_before_a_continuation_stay_as_they_are(vllm):
    chat = [{"role": "user", "content": "a"}]
    scores = vllm.score([([1, 97, 98], "cd"), ([1, 97, 98], [99, 100]), ("ab", [99, 100]), (chat, "cd")])
    assert [one.logprob for one in scores] == [-3.0 - 4.0, -3.0 - 4.0, -3.0 - 4.0, -4.0 - 5.0]


@pytest.mark.parametrize("pairs", [[("a", "")], [("a",)], ["ab"]])
def test_malformed_pairs(pairs, vllm):
    with pytest.raises(errors.InvalidInput):
        vllm.score(pairs)


def test_other_dialects_lend_no_tokenizer(server, open_generator):
    generator = open_generator()
    for call in (lambda: generator.count_tokens("a"), lambda: generator.score([("a", "b")])):
        with pytest.raises(errors.Unsupported):
            call()
    assert server.posts == []
