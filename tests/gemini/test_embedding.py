"""Vectors: in order, in batches of a hundred, with task types as roles."""

from __future__ import annotations

import numpy as np
import pytest
from faulty_server import reply

from memserve import errors


def test_vectors_come_in_order_however_many(gemini, opened):
    embedder = opened(gemini.origin, "gemini-embedding-001", task="embedder")
    texts = [f"text {i}" for i in range(250)]
    found = embedder.embed(texts)
    assert found.vectors.shape == (250, 16)
    assert sorted(len(seen.json["requests"]) for seen in gemini.seen) == [50, 100, 100]
    alone = np.concatenate([embedder.embed([text]).vectors for text in texts[::50]])
    assert np.array_equal(found.vectors[::50], alone)


@pytest.mark.parametrize(
    ("role", "task"), [("query", "RETRIEVAL_QUERY"), ("document", "RETRIEVAL_DOCUMENT"), (None, None)]
)
def test_roles_are_task_types(role, task, gemini, opened):
    opened(gemini.origin, "gemini-embedding-001", task="embedder").embed(["a"], role=role)
    assert gemini.seen[0].json["requests"][0].get("taskType") == task
    assert gemini.seen[0].json["requests"][0]["model"] == "models/gemini-embedding-001"


@pytest.mark.parametrize(
    ("role", "said"),
    [("query", "task: search result | query: a $ b"), ("document", "title: none | text: a $ b"),
     ("code", "task: code retrieval | query: a $ b"), (None, "a $ b")],
)  # fmt: skip
def test_the_newest_model_is_told_its_task_in_the_prompt(role, said, gemini, opened):
    opened(gemini.origin, "gemini-embedding-2", task="embedder").embed(["a $ b"], role=role)
    [asked] = gemini.seen[0].json["requests"]
    assert (asked["content"]["parts"], "taskType" in asked) == ([{"text": said}], False)


def test_shortened_vectors_have_length_one_again(gemini, opened):
    found = opened(gemini.origin, "gemini-embedding-001", task="embedder").embed(["a", "b"], dimensions=4)
    assert found.vectors.shape == (2, 4)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


def test_what_a_model_cannot_do_is_refused(gemini, opened):
    embedder = opened(gemini.origin, "gemini-embedding-001", task="embedder")
    for bad in ({"normalize": False}, {"role": "poem"}):
        with pytest.raises(errors.Unsupported):
            embedder.embed(["a"], **bad)
    with pytest.raises(errors.Unsupported, match="role"):
        opened(gemini.origin, "embedding-001", task="embedder").embed(["a"], role="query")
    assert embedder.embed([]).vectors.shape[0] == 0
    assert gemini.seen == []


@pytest.mark.parametrize(
    "rows",
    [[{"values": [1.0]}], [{"values": [1.0]}, {"values": [1.0, 2.0]}], [{}, {}], None,
     [{"values": [1.0]}, {"values": ["x"]}], [{"values": [float("nan")]}, {"values": [1.0]}],
     [{"values": []}, {"values": []}]],
)  # fmt: skip
def test_vectors_that_are_none_are_asked_for_again(rows, server, opened):
    good = {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}
    server.will(reply(200, {"embeddings": rows}), reply(200, good))
    embedder = opened(server.base_url, "gemini-embedding-001", task="embedder")
    assert embedder.embed(["a", "b"]).vectors.tolist() == [[1.0], [2.0]]
    server.will(reply(200, {"embeddings": rows}))
    with pytest.raises(errors.BadAnswer):
        embedder.embed(["a", "b"])
