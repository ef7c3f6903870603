"""Relevance scores belong to their documents, whatever the order."""

import asyncio
import math
from typing import Any

import pytest

QUERY = "which river runs past the bridge"
DOCUMENTS = [
    "the river runs past the old bridge", "seven green lamps stand in the window",
    "an apple lies under the paper", "which bridge",
]  # fmt: skip


def test_one_finite_score_a_document(reranker: Any) -> None:
    scores = reranker.rerank(QUERY, DOCUMENTS).scores
    assert len(scores) == len(DOCUMENTS)
    assert all(math.isfinite(score) for score in scores)


def test_scores_follow_their_documents(reranker: Any) -> None:
    forward = reranker.rerank(QUERY, DOCUMENTS).scores
    backward = reranker.rerank(QUERY, DOCUMENTS[::-1]).scores
    assert list(forward) == pytest.approx(list(backward)[::-1], abs=1e-3)


def test_company_changes_no_score(reranker: Any) -> None:
    together = reranker.rerank(QUERY, DOCUMENTS).scores
    alone = [reranker.rerank(QUERY, [document]).scores[0] for document in DOCUMENTS]
    assert list(together) == pytest.approx(alone, abs=1e-3)


def test_documents_are_told_apart(reranker: Any) -> None:
    assert len({round(score, 6) for score in reranker.rerank(QUERY, DOCUMENTS).scores}) > 1


def test_the_query_counts(reranker: Any) -> None:
    one = reranker.rerank(QUERY, DOCUMENTS).scores
    other = reranker.rerank("seven lamps", DOCUMENTS).scores
    assert list(one) != pytest.approx(list(other), abs=1e-6)


def test_many_documents_keep_their_places(reranker: Any) -> None:
    few = list(reranker.rerank(QUERY, DOCUMENTS).scores)
    many = list(reranker.rerank(QUERY, DOCUMENTS * 12).scores)
    assert many == pytest.approx(few * 12, abs=1e-3)


def test_scores_repeat(reranker: Any) -> None:
    first, second = (list(reranker.rerank(QUERY, DOCUMENTS).scores) for _ in range(2))
    assert first == pytest.approx(second, abs=1e-3)


def test_awaited_scores_are_the_same(reranker: Any) -> None:
    told = asyncio.run(reranker.arerank(QUERY, DOCUMENTS)).scores
    assert list(told) == pytest.approx(list(reranker.rerank(QUERY, DOCUMENTS).scores), abs=1e-3)


def test_no_documents_no_scores(reranker: Any) -> None:
    assert list(reranker.rerank(QUERY, []).scores) == []
