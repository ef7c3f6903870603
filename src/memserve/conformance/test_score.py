"""`score` is the log-likelihood of a continuation: additive, ordered, agreeing with what is generated."""

import asyncio
import math
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, mixed, need
from memserve.errors import ContextOverflow

CONTEXT = "The river runs past the old stone bridge"


def test_a_score_is_a_log_likelihood(generator: Any, can: Any) -> None:
    need(can, "score")
    (got,) = generator.score([(CONTEXT, " and the mill")])
    assert isinstance(got, memserve.Score)
    assert math.isfinite(got.logprob)
    assert got.logprob < 0
    assert got.tokens >= 1


def test_scores_come_in_order_and_do_not_depend_on_company(generator: Any, can: Any) -> None:
    need(can, "score")
    pairs = [(prompt, " green" + " lamp" * n) for n, prompt in enumerate(mixed(6))]
    together = generator.score(pairs)
    for one, pair in zip(together, pairs, strict=True):
        (alone,) = generator.score([pair])
        assert one.tokens == alone.tokens
        assert abs(one.logprob - alone.logprob) <= 0.05 + 0.01 * abs(alone.logprob)


def test_equal_pairs_are_each_scored(generator: Any, can: Any) -> None:
    need(can, "score")
    pairs = [(CONTEXT, " and on"), ("Seven lamps", " were green"), (CONTEXT, " and on")]
    got = generator.score(pairs)
    assert len(got) == len(pairs)
    assert abs(got[0].logprob - got[2].logprob) <= 0.05


def test_the_context_counts(generator: Any, can: Any) -> None:
    need(can, "score")
    contexts = ["Seven green lamps stand on the", "The", CONTEXT, "1, 2, 3, 4,", "def main(self):"]
    alone = [generator.score([(context, " window")])[0].logprob for context in contexts]
    together = [one.logprob for one in generator.score([(context, " window") for context in contexts])]
    assert len({round(x, 4) for x in together}) >= 4
    assert all(abs(a - b) <= 0.05 for a, b in zip(alone, together, strict=True))


def test_awaited_scores_are_the_same(generator: Any, can: Any) -> None:
    need(can, "score")
    pairs = [(prompt, " green lamp") for prompt in mixed(4)]
    awaited = asyncio.run(generator.ascore(pairs))
    assert [one.tokens for one in awaited] == [one.tokens for one in generator.score(pairs)]
    for one, other in zip(awaited, generator.score(pairs), strict=True):
        assert abs(one.logprob - other.logprob) <= 0.05


def test_a_continuation_has_its_own_tokens_only(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "score")
    if oracle is None:
        pytest.skip("capability score: no tokenizer to count with beside this model")
    for more in (" window", " under the green", " 1234, and so on"):
        (got,) = generator.score([(CONTEXT, more)])
        assert got.tokens == len(oracle.encode(CONTEXT + more)) - len(oracle.encode(CONTEXT))


def test_what_does_not_fit_is_not_scored(generator: Any, can: Any) -> None:
    need(can, "score", "context")
    if can.context > 40_000:
        pytest.skip("capability context: too large to overflow in a short test")
    with pytest.raises(ContextOverflow):
        generator.score([("word " * (int(can.context) + 16), " end")])


def test_scores_add_up(generator: Any, can: Any) -> None:
    need(can, "score")
    first, second = " under the green", " window of the bridge"
    whole, left, right = generator.score(
        [(CONTEXT, first + second), (CONTEXT, first), (CONTEXT + first, second)]
    )
    assert whole.tokens == left.tokens + right.tokens
    assert abs(whole.logprob - left.logprob - right.logprob) <= 0.05 + 0.005 * abs(whole.logprob)


def test_a_trailing_space_belongs_to_what_follows(generator: Any, can: Any) -> None:
    need(can, "score")
    inside, outside = generator.score([(CONTEXT + " ", "and on"), (CONTEXT, " and on")])
    assert inside.tokens == outside.tokens
    assert abs(inside.logprob - outside.logprob) <= 0.05


def test_what_greedy_says_is_scored_as_greedy(generator: Any, can: Any) -> None:
    need(can, "score", "raw", "deterministic")
    said = answer(generator, memserve.Raw(CONTEXT), 4)
    text = said.text
    if not text or "\ufffd" in text or text != text.strip("\n") or not text.strip():
        pytest.skip("capability score: what this model says is no text that reads back to the same tokens")
    (got,) = generator.score([(CONTEXT, text)])
    if got.tokens == said.usage.completion_tokens and said.finish_reason == "length":
        assert got.greedy in (True, None)
        if can.logprobs:
            told = answer(generator, memserve.Raw(CONTEXT), 4, logprobs=0)
            assert abs(got.logprob - sum(x.logprob for x in told.logprobs)) <= 0.1


def test_an_unlikely_continuation_is_not_greedy(generator: Any, can: Any) -> None:
    need(can, "score")
    texts = [" lamp", " zebra quartz", "\u2603\u2603"]
    scores = generator.score([(CONTEXT, text) for text in texts])
    assert any(one.greedy is not True for one in scores)
    assert len({round(one.logprob, 3) for one in scores}) > 1


def test_ids_and_text_are_scored_alike(generator: Any, can: Any) -> None:
    need(can, "score", "tokenizer", "token_ids")
    before = generator.encode("The river")
    by_ids, mixed_up = generator.score([(before, generator.encode(" runs")), (before, " runs")])
    assert by_ids.tokens >= 1
    assert by_ids == mixed_up


def test_a_whole_text_is_the_sum_of_its_windows(generator: Any, can: Any) -> None:
    need(can, "score", "tokenizer", "token_ids")
    text = CONTEXT + " and the seven green lamps stand"
    ids = generator.encode(text)
    (whole,), (halves,) = generator.score_text([text]), generator.score_text([text], window=4)
    assert whole.tokens == halves.tokens == len(ids)
    parts = [(ids[max(0, min(at, len(ids) - 4) - 1) : at], ids[at : at + 4]) for at in range(4, len(ids), 4)]
    (first,) = generator.score_text([generator.decode(ids[:4])], window=4)
    if first.tokens == 4:
        rest = sum(one.logprob for one in generator.score(parts))
        assert abs(halves.logprob - first.logprob - rest) <= 0.05 + 0.01 * abs(halves.logprob)


def test_no_pairs_no_scores(generator: Any, can: Any) -> None:
    need(can, "score")
    assert generator.score([]) == []
