"""Every vector is accounted for, or the answer is none."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from faulty_server import reply

import memserve
from memserve import errors

TEXTS = ["a", "bb", "ccc"]


def vectors_of(post):
    """What an honest server would say: a vector that tells its text's length."""
    return [[float(len(text)), 1.0, 2.0] for text in post.json["input"]]


def answering(server, change=lambda rows: rows, form=lambda vector: vector, **fields):
    async def act(wire):
        rows = [
            {"object": "embedding", "index": i, "embedding": form(v)}
            for i, v in enumerate(vectors_of(server.posts[-1]))
        ]
        body = {"data": change(rows), "usage": {"prompt_tokens": 2 * len(rows)}, **fields}
        await reply(200, json.dumps(body).encode())(wire)

    server.will(act)


@pytest.fixture
def embedder(server, quick):
    with memserve.embedder(
        "e",
        backend="openai",
        base_url=server.base_url,
        api_key="k",
        timeout=2,
        max_retries=2,
        prompts={"query": "Q: ", "document": ""},
    ) as opened:
        yield opened


def base64_of(vector):
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def test_one_vector_per_text_in_order(server, embedder):
    answering(server)
    found = embedder.embed(TEXTS)
    assert found.vectors.dtype == np.float32
    assert sorted(found.vectors[:, 0].tolist()) == found.vectors[:, 0].tolist() == [1, 2, 3]
    assert found.usage.prompt_tokens == 6
    assert server.posts[0].path == "/v1/embeddings"


def test_no_text_gives_no_vector(server, embedder):
    assert embedder.embed([]).vectors.shape[0] == 0
    assert server.posts == []


def test_reordered_rows_are_sorted_by_their_index(server, embedder):
    answering(server, change=lambda rows: rows[::-1])
    assert embedder.embed(TEXTS).vectors[:, 0].tolist() == [1, 2, 3]


def test_base64_is_read_too(server, embedder):
    answering(server, form=base64_of)
    assert embedder.embed(TEXTS).vectors[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [{**row, "index": 0} for row in rows],
        lambda rows: [{**row, "index": row["index"] + 1} for row in rows],
        lambda rows: [],
        lambda rows: None,
        lambda rows: [*rows[:-1], {**rows[-1], "embedding": [1.0]}],
        lambda rows: [*rows[:-1], {**rows[-1], "embedding": [1.0, math.nan, 2.0]}],
        lambda rows: [*rows[:-1], {**rows[-1], "embedding": [1.0, math.inf, 2.0]}],
        lambda rows: [*rows[:-1], {**rows[-1], "embedding": [1.0, None, 2.0]}],
        lambda rows: [*rows[:-1], {**rows[-1], "embedding": [1e300, 1.0, 2.0]}],
        lambda rows: [*rows[:-1], {**rows[-1], "embedding": [10**400, 1.0, 2.0]}],
        lambda rows: [{**row, "embedding": []} for row in rows],
        lambda rows: [{**row, "embedding": "!!!"} for row in rows],
        lambda rows: [{**row, "embedding": base64.b64encode(b"abcde").decode()} for row in rows],
        lambda rows: [{"index": row["index"]} for row in rows],
    ],
)
def test_what_does_not_account_for_every_text_is_no_answer(change, server, embedder):
    answering(server, change=change)
    with pytest.raises(errors.BadAnswer):
        embedder.embed(TEXTS)
    assert len(server.posts) == 3


def test_a_short_answer_is_asked_again(server, embedder):
    async def first(wire):
        await reply(200, {"data": []})(wire)

    answering(server)
    server.acts = [first, *server.acts]
    assert len(embedder.embed(TEXTS).vectors) == 3


def test_roles_prepend_their_prompts(server, embedder):
    answering(server)
    embedder.embed(["x"], role="query")
    embedder.embed(["x"], role="document")
    embedder.embed(["x"])
    assert [post.json["input"] for post in server.posts] == [["Q: x"], ["x"], ["x"]]
    with pytest.raises(errors.Unsupported, match="judge"):
        embedder.embed(["x"], role="judge")
    assert embedder.identity["prompt query"] == "Q: "  # other prompts, other vectors: a cache must know


def test_normalize(server, embedder):
    answering(server)
    lengths = np.linalg.norm(embedder.embed(TEXTS, normalize=True).vectors, axis=1)
    assert lengths == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(errors.Unsupported, match="normalize=False"):
        embedder.embed(TEXTS, normalize=False)


def test_dimensions_are_asked_for_and_checked(server, embedder):
    answering(server)
    embedder.embed(TEXTS, dimensions=3)
    assert server.posts[0].json["dimensions"] == 3
    with pytest.raises(errors.BadAnswer, match="2 dimensions were asked for and 3 came"):
        embedder.embed(TEXTS, dimensions=2)
    with pytest.raises(errors.InvalidInput):
        embedder.embed(TEXTS, dimensions=0)


def test_too_many_dimensions_are_the_servers_to_refuse(server, embedder):
    server.will(reply(400, {"error": {"message": "dimensions must be at most 3"}}))
    with pytest.raises(errors.BadRequest, match="at most 3"):
        embedder.embed(TEXTS, dimensions=4)


def test_many_texts_are_cut_into_batches(server, embedder):
    answering(server)
    texts = ["x" * (i % 50 + 1) for i in range(5000)]
    found = embedder.embed(texts)
    assert found.vectors[:, 0].tolist() == [len(text) for text in texts]
    assert all(len(post.json["input"]) <= 2048 for post in server.posts)
    assert found.usage.prompt_tokens == 10_000


def test_a_batch_that_is_too_large_is_cut_in_two(server, embedder):
    async def act(wire):
        if len(server.posts[-1].json["input"]) > 2:
            await reply(
                413, {"error": "batch size 3 > maximum allowed batch size 2", "error_type": "Validation"}
            )(wire)
        else:
            await good(wire)

    answering(server)
    good = server.acts[0]
    server.will(act)
    texts = ["x" * i for i in range(1, 8)]
    assert embedder.embed(texts).vectors[:, 0].tolist() == [len(text) for text in texts]


@pytest.mark.parametrize("texts", [[3], [None], [["a"]]])
def test_texts_are_strings(texts, embedder):
    with pytest.raises(errors.InvalidInput):
        embedder.embed(texts)


def test_a_single_text_is_a_list_of_one(server, embedder):
    answering(server)
    assert embedder.embed("abc").vectors.tolist() == [[3.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("dialect", "path", "field"), [("vllm", "/v1/rerank", "documents"), ("tei", "/rerank", "texts")]
)
def test_rerank_scores_keep_the_order_of_the_documents(dialect, path, field, server, quick):
    rows = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
    server.will(
        reply(
            200,
            {"results": rows}
            if dialect == "vllm"
            else [{"index": r["index"], "score": r["relevance_score"]} for r in rows],
        )
    )
    with memserve.reranker("r", backend="openai", base_url=server.base_url, dialect=dialect) as reranker:
        assert reranker.rerank("q", ["a", "b"]).scores == (0.1, 0.9)
        assert server.posts[0].path == path
        assert server.posts[0].json[field] == ["a", "b"]
        with pytest.raises(errors.BadAnswer):
            reranker.rerank("q", ["a", "b", "c"])
        assert reranker.rerank("q", []).scores == ()
