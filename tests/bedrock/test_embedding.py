"""Vectors of Titan and Cohere: in order, in the body that each takes, with tokens and roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_bedrock import ACCESS, SECRET
from faulty_server import reply
from run_conformance import conformance

import memserve
from memserve import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAIR = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET, "region": "us-east-1"}
TITAN, FIRST = "amazon.titan-embed-text-v2:0", "amazon.titan-embed-text-v1"
COHERE, FOURTH = "cohere.embed-multilingual-v3", "us.cohere.embed-v4:0"


@pytest.fixture
def embeds(quick: None) -> Iterator[Callable[..., Any]]:
    held = []

    def make(base_url: str, model: str, **options: Any) -> Any:
        settings = {**PAIR, "timeout": 30, "max_retries": 1, "base_url": base_url, **options}
        held.append(memserve.embedder(model, backend="bedrock", **settings))
        return held[-1]

    yield make
    for embedder in held:
        embedder.close()


@pytest.mark.parametrize(("model", "calls"), [(TITAN, 100), (FIRST, 100), (COHERE, 2), (FOURTH, 2)])
def test_vectors_come_in_order_with_their_tokens(model, calls, bedrock, embeds):
    embedder = embeds(bedrock.origin, model)
    texts = [f"text {i}" for i in range(100)]
    found = embedder.embed(texts)
    assert (found.vectors.shape, len(bedrock.seen)) == ((100, 16), calls)
    alone = [embedder.embed([text]) for text in texts[::25]]
    assert np.array_equal(found.vectors[::25], np.concatenate([one.vectors for one in alone]))
    assert found.usage.prompt_tokens == 100 * alone[0].usage.prompt_tokens
    assert embedder.embed([]).vectors.shape[0] == 0


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [(TITAN, {}, {"inputText": "a"}),
     (TITAN, {"dimensions": 8, "normalize": False}, {"inputText": "a", "dimensions": 8, "normalize": False}),
     (FIRST, {"normalize": True}, {"inputText": "a"}),
     (COHERE, {"role": "query"}, {"input_type": "search_query"}),
     (COHERE, {}, {"input_type": "search_document"}),
     (FOURTH, {"role": "clustering", "dimensions": 8}, {"input_type": "clustering", "output_dimension": 8})],
)  # fmt: skip
def test_what_is_asked_stands_in_the_body(model, asked, sent, bedrock, embeds):
    found = embeds(bedrock.origin, model).embed(["a"], **asked)
    [seen] = bedrock.seen
    assert seen.path.endswith("/invoke")
    assert sent.items() <= seen.json.items()
    assert set(seen.json) - set(sent) <= {"texts", "embedding_types", "truncate"}
    if asked.get("normalize"):
        assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    assert found.vectors.shape[1] == asked.get("dimensions", 16)


@pytest.mark.parametrize(
    ("model", "asked"),
    [(TITAN, {"role": "query"}), (FIRST, {"dimensions": 8}), (FIRST, {"normalize": False}),
     (COHERE, {"dimensions": 8}), (COHERE, {"normalize": False}), (FOURTH, {"role": "poem"})],
)  # fmt: skip
def test_what_a_model_does_not_take_is_refused_unsent(model, asked, bedrock, embeds):
    with pytest.raises(errors.Unsupported):
        embeds(bedrock.origin, model).embed(["a"], **asked)
    assert not bedrock.seen


def test_a_model_that_makes_no_vectors_is_refused(bedrock, embeds):
    with pytest.raises(errors.Unsupported, match="Titan's"):
        embeds(bedrock.origin, "amazon.nova-lite-v1:0")


@pytest.mark.parametrize(
    "body",
    [{}, {"embedding": []}, {"embedding": [1, "x"]}, {"embedding": [1e400]}, {"embeddings": None},
     {"embeddings": {"int8": [[1]]}}, {"embedding": {"float": [1]}}, {"embeddings": [[1], [2]]}],
)  # fmt: skip
def test_vectors_that_are_none_are_asked_for_again(body, server, embeds):
    server.will(reply(200, body), reply(200, {"embedding": [1.0, 2.0]}))
    assert embeds(server.base_url, TITAN).embed(["a"]).vectors.tolist() == [[1.0, 2.0]]
    server.will(reply(200, body))
    with pytest.raises(errors.BadAnswer):
        embeds(server.base_url, TITAN).embed(["a"])


@pytest.mark.slow
def test_the_conformance_suite_passes(bedrock, tmp_path):
    where = {"base_url": bedrock.origin, **PAIR}
    assert conformance(tmp_path, "bedrock", TITAN, "--task", "embed", **where)["passed"] > 10
