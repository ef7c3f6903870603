"""Several generators behind one: who answers, who does not, and who is said to have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import memserve
from memserve import errors
from memserve.protocol import Capabilities, Completion
from memserve.run.routing import named

REFUSED = "http://127.0.0.1:9/v1"


def opened(url, model="m", **options):
    return memserve.generator(model, backend="openai", base_url=url, api_key="k", **options)


def test_the_next_answers_where_the_first_is_out(serve):
    second = serve()
    with memserve.route([opened(REFUSED), opened(second.url, "n")]) as routed:
        answers = routed.generate(["a", "b", "c"])
    assert [answer.text for answer in answers] == ["A", "B", "C"]
    assert {answer.by for answer in answers} == {"openai:n"}


@pytest.mark.parametrize("most_usd", [-1, float("nan"), float("inf"), "1"])
def test_what_is_no_amount_bounds_nothing(most_usd):
    with opened(REFUSED) as one, pytest.raises(errors.InvalidInput, match="most_usd"):
        memserve.route([one], most_usd=most_usd)


@pytest.mark.parametrize("status", [500, 401, 403, 404, 400])
def test_whatever_keeps_the_first_from_answering(serve, status):
    first, second = serve(), serve()
    first.status = status
    with memserve.route([opened(first.url), opened(second.url, "n")]) as routed:
        assert routed.generate("a").by == "openai:n"
    assert len(first.posts) == 1, "its own retries are left to whoever has no other"


def test_the_first_answers_while_it_can(serve):
    first, second = serve(), serve()
    with memserve.route([opened(first.url), opened(second.url, "n")]) as routed:
        assert {answer.by for answer in routed.generate(list("abcdef"))} == {"openai:m"}
    assert second.posts == []


def test_where_nobody_answers_the_error_names_all(serve):
    first, second = serve(), serve()
    first.status = second.status = 404
    with (
        memserve.route([opened(first.url, max_retries=0), opened(second.url, "n", max_retries=0)]) as routed,
        pytest.raises(errors.NotFound, match="so did openai:m: NotFound"),
    ):
        routed.generate("a")


def test_a_stream_is_begun_by_one_that_can(serve):
    with memserve.route([Streamer("a", errors.EngineFailed("x")), Streamer("b", SAID)]) as routed:
        assert [(delta.text, delta.by) for delta in routed.stream("a")] == [("yes", "toy:b")]


class Engine:
    """Answers as it is told to."""

    def __init__(self, model, answer, **known):
        own = dict.fromkeys(("chat", "max_tokens", "temperature", "top_p"), True)
        self.capabilities = Capabilities(backend="toy", model=model, **own, **known)
        self.answer, self.closed = answer, 0

    async def agenerate(self, request, **settings):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        self.closed += 1


class Streamer(Engine):
    def __init__(self, model, answer):
        super().__init__(model, answer, stream=True)

    async def astream(self, request, **settings):
        yield memserve.Delta((await self.agenerate(request)).text)


SAID = Completion(text="yes", finish_reason="stop")


class Refuser(Streamer):
    """Refuses before a word, or after one."""

    async def astream(self, request, **settings):
        for word in self.answer:
            yield memserve.Delta(word)
        yield memserve.Delta("", "content_filter")


def test_a_stream_that_is_refused_before_a_word_is_begun_by_the_next():
    said = Streamer("b", SAID)
    for members, heard in (
        ([Refuser("a", []), said], [("yes", None, "toy:b")]),
        ([Refuser("a", ["no"]), said], [("no", None, "toy:a"), ("", "content_filter", "toy:a")]),
        ([Refuser("a", []), Refuser("c", [])], [("", "content_filter", "toy:a")]),
        ([Refuser("a", []), Streamer("b", errors.EngineFailed("x"))], [("", "content_filter", "toy:a")]),
    ):
        with memserve.route(members) as routed:
            assert [(one.text, one.finish_reason, one.by) for one in routed.stream("a")] == heard


def test_a_refused_answer_is_asked_of_the_next():
    refusal = Completion(text=None, finish_reason="content_filter", refusal="I will not")
    with memserve.route([Engine("a", refusal), Engine("b", SAID)]) as routed:
        assert routed.generate("x").by == "toy:b"
    with memserve.route([Engine("a", refusal), Engine("b", errors.ContentRefused("no"))]) as routed:
        assert routed.generate("x").refusal == "I will not"


@pytest.mark.parametrize(
    "error",
    [errors.ContextOverflow(tokens=9, limit=8), errors.QuotaExceeded("spent"), errors.EngineFailed("x")],
)
def test_what_one_cannot_another_may(error):
    with memserve.route([Engine("a", error), Engine("b", SAID)]) as routed:
        assert routed.generate("x").by == "toy:b"


def test_too_expensive_an_answer_is_asked_of_the_next():
    members = [Engine("claude-opus-5", SAID), Engine("b", SAID)]
    members[0].capabilities = replace(members[0].capabilities, backend="anthropic")
    with memserve.route(members, most_usd=0.01) as routed:
        assert routed.generate("x", max_tokens=10).by == "anthropic:claude-opus-5"
        assert routed.generate("x", max_tokens=10_000).by == "toy:b"
    assert [member.closed for member in members] == [1, 1]


def test_a_member_that_may_cost_anything_is_named():
    members = [Engine("b", SAID), Engine("c", SAID)]
    members[1].identity = {"base_url": "https://api.example.com/v1"}
    with pytest.warns(UserWarning, match="no price is known of toy:c: "):
        memserve.route(members, most_usd=0.01).close()


def test_what_can_be_asked_is_what_all_can_do():
    with memserve.route([Engine("a", SAID, stop=True, max_n=4, n=True), Engine("b", SAID, n=True)]) as routed:
        known = routed.capabilities
        assert (known.stop, known.n, known.max_n, known.backend, known.model) == (
            False,
            True,
            4,
            "route",
            "a | b",
        )
        with pytest.raises(errors.Unsupported, match="stop"):
            routed.generate("x", stop="y")


@pytest.mark.parametrize("wrong", [[], ["name"], [Engine("a", SAID), None], Engine("a", SAID), None])
def test_what_is_no_list_of_generators_is_refused(wrong):
    with pytest.raises(errors.InvalidInput, match="open generators"):
        memserve.route(wrong)


@pytest.mark.parametrize(
    "words", ["m", "openai:", ":m", "openai:m@", "openai:m@10.0.0.1:8000/v1", "vllm:a/b@host/v1"]
)
def test_a_fallback_whose_address_is_none_is_no_model_elsewhere(words):
    with pytest.raises(errors.InvalidInput, match="BACKEND:MODEL"):
        named(words)
    assert named("bedrock:claude@20240620")["model_or_plan"] == "claude@20240620"


def test_servers_share_a_run_by_their_own_speed(serve):
    fast, slow = serve(seconds=0.01), serve(seconds=0.1)
    with memserve.route([opened(fast.url), opened(slow.url)], "balance", concurrency=16) as routed:
        answers = routed.generate([f"p{number}" for number in range(400)])
    by = Counter(answer.by for answer in answers)
    assert set(by) == {f"openai:m@{fast.url}", f"openai:m@{slow.url}"}
    assert by[f"openai:m@{fast.url}"] > 3 * by[f"openai:m@{slow.url}"]


def test_one_server_of_two_may_die(serve):
    first, second = serve(), serve()
    first.status = 500
    with memserve.route([opened(first.url), opened(second.url)], "balance") as routed:
        answers = routed.generate([f"p{number}" for number in range(60)])
    assert all(answer.text for answer in answers)
    assert len(second.answered) == 60


@pytest.mark.slow
def test_a_run_falls_back_and_says_who_answered(serve, tmp_path):
    first, second = serve(), serve()
    first.status = 503
    requests, out = tmp_path / "r.jsonl", tmp_path / "a.jsonl"
    requests.write_text("".join(json.dumps({"id": i, "prompt": f"p{i}"}) + "\n" for i in range(20)))
    words = [
        "--backend",
        "openai",
        "--model",
        "m",
        "--base-url",
        first.url,
        "--fallback",
        f"openai:n@{second.url}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "memserve.run", str(requests), "-o", str(out), "--quiet", *words,
         "--options", "api_key=k"],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "OPENAI_API_KEY": "k"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in Path(out).read_text().splitlines()]
    assert len(rows) == 20 and {row["by"] for row in rows} == {"openai:n"}


def test_an_answer_is_billed_at_the_price_of_who_answered(out, rows):
    cheap, dear = Engine("gpt-5-mini", replace(SAID, usage=memserve.Usage(1_000_000, 0))), Engine("b", SAID)
    cheap.capabilities = replace(cheap.capabilities, backend="openai")
    dear.capabilities = replace(dear.capabilities, backend="anthropic", model="claude-opus-5")
    with memserve.route([cheap, dear]) as routed:
        memserve.run.run(["x"], out, generator=routed, budget="100usd", progress=False)
    [row] = rows(out)
    assert row["usd"] == pytest.approx(routed.prices["openai:gpt-5-mini"].input)
