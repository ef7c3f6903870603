"""`score` is the log-likelihood of a continuation: additive, ordered, agreeing with what is generated."""

import asyncio
import math
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import BROKEN, answer, heat, mixed, need, question, said
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


def test_each_token_of_a_score_is_told(generator: Any, can: Any) -> None:
    need(can, "score")
    pairs = [(CONTEXT, " and the mill"), ("1, 2, 3,", " 4, 5"), (CONTEXT, " zebra quartz")]
    scores = generator.score(pairs)
    if not any(got.logprobs for got in scores):
        pytest.skip("capability score: single tokens are not told")
    for got in scores:
        assert len(got.logprobs) == got.tokens
        assert abs(sum(one.logprob for one in got.logprobs) - got.logprob) <= 1e-3 * (1 + abs(got.logprob))
        assert all(one.top[0][1] >= one.logprob for one in got.logprobs)
        assert got.greedy in (None, all(one.top[0][0] == one.token for one in got.logprobs))


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


# ---------------------------------------------------------------------- logprobs


NEAR = 0.03
"""Natural log; half precision in another order of arithmetic stays within it."""


def _told(generator: Any, can: Any, top: int = 3) -> Any:
    need(can, "logprobs")
    return answer(generator, question(2), 8, logprobs=min(top, can.logprobs))


def test_every_token_has_a_logprob(generator: Any, can: Any) -> None:
    got = _told(generator, can)
    assert got.logprobs
    need(can, "usage")
    assert abs(len(got.logprobs) - got.usage.completion_tokens) <= 1
    if can.returns_token_ids:
        assert len(got.logprobs) == len(got.token_ids)


def test_logprobs_are_logs_of_probabilities(generator: Any, can: Any) -> None:
    for entry in _told(generator, can).logprobs:
        assert math.isfinite(entry.logprob)
        assert entry.logprob <= 1e-4
        assert sum(math.exp(rival) for _, rival in entry.top) <= 1.001


def test_the_greedy_token_is_the_likeliest(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    for entry in _told(generator, can).logprobs:
        assert entry.logprob >= max(rival for _, rival in entry.top) - 0.02


def test_rivals_are_sorted(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    for entry in _told(generator, can).logprobs:
        rivals = [rival for _, rival in entry.top]
        assert rivals == sorted(rivals, reverse=True)


def test_a_token_has_the_number_that_its_rivals_give_it(generator: Any, can: Any) -> None:
    need(can, "logprobs")
    hot = {"temperature": heat(generator, 1.2)} if can.temperature else {}
    for settings in ({}, hot, hot):
        top = min(20, can.logprobs)
        for entry in answer(generator, question(4), 8, logprobs=top, **settings).logprobs:
            if BROKEN in entry.token:
                continue  # half a character: others look the same
            named = [rival for token, rival in entry.top if token == entry.token]
            worst = entry.top[-1][1] if len(entry.top) >= top else 0.0
            # two tokens may have one spelling: then the chosen one may stand below all that are told
            told = min((abs(entry.logprob - x) for x in named), default=1.0) <= NEAR
            assert told or entry.logprob <= worst + NEAR


def test_temperature_changes_no_logprob(generator: Any, can: Any) -> None:
    """They are of the model's own distribution, so that answers sampled at any temperature compare."""
    need(can, "logprobs", "temperature")
    ways: list[dict[str, Any]] = [{}, {"temperature": heat(generator, 1.7)}, {"temperature": 0.5}]
    if can.top_k:
        ways.append({"temperature": 0.7, "top_k": 1})
    most = min(2, can.logprobs)
    tops = [answer(generator, question(2), 1, logprobs=most, **way).logprobs[0].top for way in ways]
    best = [max(value for _, value in top) for top in tops]  # the chosen token may be told first
    assert all(abs(value - best[0]) <= 4 * NEAR for value in best)


def _spell(tokens: list[str], text: str) -> bool:
    """Whether they make the text. One may stand between that no text shows: a mark of the template."""
    ends = {0}
    for token in tokens:
        ways = {token, token.lstrip(), token.rstrip()}
        ends |= {end + len(way) for end in ends for way in ways if text.startswith(way, end)}
    return len(text) in ends


def test_every_sample_has_its_own(generator: Any, can: Any) -> None:
    need(can, "logprobs", "n", "temperature")
    if can.max_n is not None and can.max_n < 2:
        pytest.skip("capability max_n: one sample only")
    hot = {"temperature": heat(generator, 1.3), "n": 2, "logprobs": 0}
    for sample in answer(generator, question(4), 8, **hot).samples:
        tokens = [entry.token for entry in sample.logprobs]
        assert BROKEN in "".join(tokens) + said(sample) or _spell(tokens, said(sample).strip())


def test_ids_of_logprobs_are_the_answers(generator: Any, can: Any) -> None:
    need(can, "returns_token_ids")
    got = _told(generator, can)
    told = [entry.token_id for entry in got.logprobs]
    assert told in (list(got.token_ids), [None] * len(told))


def test_as_many_rivals_as_asked(generator: Any, can: Any) -> None:
    for entry in _told(generator, can).logprobs:
        assert min(3, can.logprobs) <= len(entry.top) <= min(3, can.logprobs) + 1


def test_the_tokens_spell_the_text(generator: Any, can: Any) -> None:
    got = _told(generator, can)
    tokens = [entry.token for entry in got.logprobs]
    if BROKEN not in "".join(tokens) + said(got):
        assert _spell(tokens, said(got).strip())


def test_asking_for_logprobs_changes_no_answer(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    assert _told(generator, can).text == answer(generator, question(2), 8).text


def test_no_logprobs_unless_asked(generator: Any) -> None:
    assert answer(generator, question(2), 3).logprobs is None
