"""Relevance scores belong to their documents, whatever the order."""

from __future__ import annotations

import math
from typing import Any

import pytest

QUERY = "which river runs past the bridge"
DOCUMENTS = [
    "the river runs past the old bridge",
    "seven green lamps stand in the window",
    "an apple lies under the paper",
    "which bridge",
]


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


def test_no_documents_no_scores(reranker: Any) -> None:
    assert list(reranker.rerank(QUERY, []).scores) == []
