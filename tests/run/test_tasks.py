"""Vectors, rankings and log-likelihoods as runs, and lines of the batch format."""

from __future__ import annotations

import json

import numpy as np
import pytest

import memserve
from memserve import errors
from memserve.client.handle import for_engine
from memserve.client.pooling import Embedder, Reranker
from memserve.protocol import Capabilities, Completion, Embeddings, Ranking, Score, Usage
from memserve.run import run, vectors
from memserve.run.__main__ import main


class Vectors:
    """A text's vector is its length and its first sign; "bad" is refused, "out" is a server that is gone."""

    any_loop = True

    def __init__(self, **known):
        self.capabilities = Capabilities(backend="toy", model="v", tasks=frozenset({"embed"}),
                                         roles=frozenset({"query"}), dimensions=True, **known)  # fmt: skip
        self.calls = []

    async def aembed(self, texts, *, role, normalize, dimensions):
        self.calls.append((len(texts), role, dimensions))
        if "bad" in texts:
            raise errors.BadRequest("no")
        rows = [[len(text) / 3, ord(text[0])] for text in texts]
        return Embeddings(np.array(rows, np.float32), Usage(prompt_tokens=10 * len(texts)), "v")


def embedder(**known):
    engine = Vectors(**known)
    return Embedder(engine, for_engine(engine, 16)), engine


def test_answers_without_vectors_are_told_as_such(out, fake):
    run(["a"], out, generator=fake())
    with pytest.raises(errors.InvalidInput, match=r"holds no vectors.*memserve\.run\.answers"):
        vectors(out)


@pytest.mark.parametrize("batches", [False, True])
def test_vectors_come_in_few_calls_and_back_as_a_matrix(out, failed, batches):
    opened, engine = embedder(batches=batches)
    texts = [f"{'x' * (number % 7)}t{number}" for number in range(300)]
    with opened:
        requests = [*({"id": n, "text": text} for n, text in enumerate(texts)), {"id": "b", "text": "bad"}]
        summary = run(requests, out, generator=opened, order="given", progress=False)
    assert (summary.done, summary.failed) == (300, 1)
    assert failed()[0]["id"] == "b"
    names, matrix = memserve.run.vectors(out)
    assert names == list(range(300))
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix[:, 0], np.array([len(text) / 3 for text in texts], np.float32))
    assert summary.prompt_tokens == 3000
    assert sum(count for count, *_ in engine.calls) < 3 * 300


def test_a_second_run_embeds_what_is_missing(out):
    opened, engine = embedder()
    with opened:
        run(["a", "b"], out, generator=opened, progress=False)
        summary = run(["a", "b", "c"], out, generator=opened, progress=False)
    assert (summary.resumed, summary.done) == (2, 1)
    assert sum(count for count, *_ in engine.calls) == 3


def test_each_line_may_have_its_own_role(out):
    opened, engine = embedder()
    with opened:
        run([{"text": "a", "role": "query"}, {"text": "b", "dimensions": 1}, "c"], out, generator=opened,
            settings={"extra": {"dimensions": 2}}, progress=False)  # fmt: skip
    assert sorted(engine.calls, key=str) == [(1, "query", 2), (1, None, 1), (1, None, 2)]


class Ranks:
    any_loop = True
    capabilities = Capabilities(backend="toy", model="r", tasks=frozenset({"rerank"}))

    async def arerank(self, query, documents):
        return Ranking(tuple(float(len(one)) for one in documents), Usage(7))


def test_documents_are_ranked(out, rows, failed):
    engine = Ranks()
    with Reranker(engine, for_engine(engine, 4)) as opened:
        requests = [{"id": 1, "query": "q", "documents": ["a", "bb"]}, {"id": 2, "query": "q"},
                    {"id": 3, "query": "q", "documents": []}]  # fmt: skip
        run(requests, out, generator=opened, progress=False)
    assert [(row["id"], row["scores"]) for row in rows(out)] == [(1, [1.0, 2.0])]
    assert [row["id"] for row in failed()] == [2, 3]
    assert "empty list" in failed()[1]["message"]


class Scores:
    def __init__(self, batches=False):
        self.capabilities = Capabilities(backend="toy", model="s", score=True, batches=batches)

    def generate(self, prompts, **settings):
        raise AssertionError("scores were asked for")

    def score(self, pairs):
        return [Score(-float(len(said)), len(said), True) for _, said in pairs]

    async def ascore(self, pairs):
        return self.score(pairs)


@pytest.mark.parametrize("batches", [False, True])
def test_continuations_are_scored(out, rows, batches):
    run(
        [{"id": 1, "context": "a", "continuation": " bc"}],
        out,
        generator=Scores(batches),
        task="score",
        progress=False,
    )
    [row] = rows(out)
    assert (row["logprob"], row["tokens"], row["greedy"]) == (-3.0, 3, True)
    assert "text" not in row


def test_a_task_that_the_opened_one_cannot_do_is_refused(out, fake):
    opened, _ = embedder()
    with opened, pytest.raises(errors.InvalidInput, match="needs another opener"):
        run(["a"], out, generator=opened, task="generate", progress=False)
    with pytest.raises(errors.Unsupported, match="score"):
        run(["a"], out, generator=fake(), task="score", progress=False)


LINE = {
    "custom_id": "r1", "method": "POST", "url": "/v1/chat/completions",
    "body": {"model": "fake-1", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9},
}  # fmt: skip


def test_lines_of_the_batch_format_are_read_and_written(out, rows, fake, tmp_path):
    generator = fake({"*": [Completion(text="HI", finish_reason="stop", usage=Usage(10, 5), request_id="q")]})
    other = {**LINE, "custom_id": "r2", "body": {**LINE["body"], "model": "another"}}
    odd = {**LINE, "custom_id": "r3", "body": {**LINE["body"], "audio": {}}}
    run([LINE, other, odd, {"custom_id": "r4"}], out, generator=generator, progress=False)
    assert generator.settings == [{"max_tokens": 9}]
    lines = {line["custom_id"]: line for line in memserve.run.batch_lines(out)}
    body = lines["r1"]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "HI"
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert "model 'another'" in lines["r2"]["error"]["message"]
    assert "body.audio" in lines["r3"]["error"]["message"]
    assert lines["r4"]["error"]["message"] == "body is an object"
    assert len({line["id"] for line in lines.values()}) == 4


def test_the_command_writes_vectors_and_batch_lines(serve, tmp_path, rows, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    server, requests, out = serve(), tmp_path / "r.jsonl", tmp_path / "a.jsonl"
    requests.write_text(json.dumps({**LINE, "body": {**LINE["body"], "model": "m"}}) + "\n")
    words = ["--backend", "openai", "--model", "m", "--base-url", server.url, "--quiet"]
    assert main([str(requests), "-o", str(out), *words, "--batch-lines", str(tmp_path / "b.jsonl")]) == 0
    assert main([str(requests), "-o", str(out), *words, "--batch-lines", str(tmp_path / "b.jsonl")]) == 0
    [line] = rows(tmp_path / "b.jsonl")
    assert line["response"]["body"]["choices"][0]["message"]["content"] == "HI"
    assert main([str(requests), "-o", str(out), *words, "--task", "embed", "--fallback", "openai:x"]) == 2


def test_a_cache_keeps_what_a_task_gave_apart_from_texts(out, tmp_path, fake):
    """A text of the same model is asked for, and so are vectors under other prompts."""
    opened, engine = embedder()
    kept = {"cache": tmp_path / "kept.sqlite", "progress": False}
    with opened:
        run(["a", "b"], out, generator=opened, **kept)
        again = run(["a", "b", "c"], tmp_path / "again.jsonl", generator=opened, **kept)
    assert (again.cached, again.done, sum(count for count, *_ in engine.calls)) == (2, 1, 3)
    _, matrix = vectors(tmp_path / "again.jsonl")
    assert matrix.shape == (3, 2)
    text = fake()
    text.capabilities = Capabilities(backend="toy", model="v")
    request = {"prompt": "a", "max_tokens": 1}
    assert run([request], tmp_path / "text.jsonl", generator=text, **kept).done == 1
    engine.identity = {"prompt query": "other"}
    with Embedder(engine, for_engine(engine, 16)) as other:
        assert run(["a"], tmp_path / "other.jsonl", generator=other, **kept).done == 1


@pytest.mark.parametrize("request_", [
    {"text": "a", "max_tokens": 5}, {"text": "a", "top_n": 1}, {"text": "a", "query": "b"},
])  # fmt: skip
def test_a_line_of_a_task_has_no_settings_of_text(out, failed, request_):
    opened, _ = embedder()
    with opened:
        run([request_], out, generator=opened, progress=False)
    assert "a request to embed has role, normalize, dimensions, text, not" in failed()[0]["message"]


@pytest.mark.parametrize("given", [{"settings": {"max_tokens": 5}}, {"batch": True}])
def test_what_is_for_text_is_refused_of_a_task(out, given):
    opened, engine = embedder()
    with opened, pytest.raises(errors.InvalidInput, match="is for text, and the task is embed"):
        run(["a"], out, generator=opened, progress=False, **given)
    assert not engine.calls
