"""/v1/completions with `echo`: the prompt stands before its answer, each token with its log-probability."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from extras import need

import memserve
from memserve.client.generation import Generator
from memserve.client.handle import for_engine

ROOT = Path(__file__).parents[2]
httpx = need("httpx", "test")
TEXT = "/v1/completions"
WORDS = "The river runs past"


@pytest.fixture
def toy(start):
    """Ask the example backend behind an endpoint, and where that is."""
    _, url, _ = start("--backend", "toy", "--no-key", "--name", "toy")
    with httpx.Client(base_url=url.removesuffix("/v1"), timeout=60) as client:
        yield lambda body: client.post(TEXT, json={"model": "toy", "temperature": 0, **body}), url


@pytest.fixture
def toy_generator(monkeypatch):
    """The same in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin"))
    from memserve_toy.engine import ToyEngine

    engine = ToyEngine()
    with Generator(engine, for_engine(engine, 1)) as found:
        yield found


@pytest.mark.slow
def test_a_prompt_is_echoed_with_what_its_tokens_score(toy, toy_generator):
    ask, url = toy
    plain = ask({"prompt": WORDS, "max_tokens": 4}).json()["choices"][0]["text"]
    ids = toy_generator.encode(WORDS)
    for prompt, most in [(WORDS, 0), (WORDS, 4), (ids, 0), (ids, 4)]:
        body = ask({"prompt": prompt, "max_tokens": most, "echo": True, "logprobs": 1}).json()
        [choice] = body["choices"]
        told = choice["logprobs"]
        assert (most > 0 and isinstance(prompt, list)) or choice["text"] == WORDS + plain * (most > 0)
        assert "".join(told["tokens"][: len(ids)]) == WORDS
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        assert told["text_offset"][: len(ids)] == list(range(len(ids)))
        assert all(len(told[name]) == len(told["tokens"]) for name in told)
        whole = toy_generator.encode(memserve.Raw(WORDS)) if prompt is WORDS else ids  # perhaps with a BOS
        [score] = toy_generator.score([(whole[: len(whole) - len(ids) + 1], ids[1:])])
        assert sum(told["token_logprobs"][1 : len(ids)]) == pytest.approx(score.logprob)
        best = [max(top.values()) for top in told["top_logprobs"][1 : len(ids)]]
        assert score.greedy == (best == told["token_logprobs"][1 : len(ids)])
        assert body["usage"]["completion_tokens"] <= most
    with memserve.generator("toy", backend="openai", base_url=url, api_key="x") as asked:
        assert asked.capabilities.score
        pairs = [(WORDS, " the bridge"), (ids, ids)]
        for one, other in zip(asked.score(pairs), toy_generator.score(pairs), strict=True):
            assert (one.tokens, one.greedy) == (other.tokens, other.greedy)
            assert one.logprob == pytest.approx(other.logprob)


@pytest.mark.slow
def test_echoes_without_log_probabilities_in_streams_and_of_several(toy):
    ask, _ = toy
    alone = [ask({"prompt": one, "max_tokens": 3}).json()["choices"][0]["text"] for one in (WORDS, "One")]
    both = ask({"prompt": [WORDS, "One"], "max_tokens": 3, "echo": True}).json()["choices"]
    assert [one["text"] for one in both] == [WORDS + alone[0], "One" + alone[1]]
    assert [one["logprobs"] for one in both] == [None, None]
    lines = ask({"prompt": WORDS, "max_tokens": 3, "echo": True, "stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(one["text"] for chunk in chunks for one in chunk["choices"]) == WORDS + alone[0]
    one = ask({"prompt": "O", "max_tokens": 0, "echo": True, "logprobs": 0}).json()["choices"][0]["logprobs"]
    assert one == {"tokens": ["O"], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [0]}
    refused = ask({"prompt": WORDS, "echo": True, "logprobs": 5})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")
    assert ask({"prompt": WORDS, "max_tokens": 0}).status_code == 400


def test_who_does_not_score_refuses(ask):
    refused = ask(TEXT, {"model": "talker-1", "prompt": "x", "echo": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "echo")
    assert "log-probabilities" in refused.json()["error"]["message"]
