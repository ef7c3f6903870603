"""Vectors: order, norm, role, dimensions, and no difference between alone and in company."""

from __future__ import annotations

import math
from typing import Any

import pytest

from memserve.conformance.asking import mixed, need
from memserve.conformance.target import prompts_of
from memserve.errors import InvalidInput, MemserveError

CLOSE = 0.9999


def _cosine(a: Any, b: Any) -> float:
    return float((a @ b) / max(1e-12, math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))))


def _norms(vectors: Any) -> list[float]:
    return [math.sqrt(float(row @ row)) for row in vectors]


def test_one_float32_row_a_text(embedder: Any) -> None:
    got = embedder.embed(mixed(5))
    assert got.vectors.shape[0] == 5
    assert got.vectors.ndim == 2
    assert got.vectors.dtype.name == "float32"
    assert all(math.isfinite(x) for row in got.vectors for x in row)


def test_no_texts_no_vectors(embedder: Any) -> None:
    assert len(embedder.embed([]).vectors) == 0


def test_vectors_come_in_the_order_of_their_texts(embedder: Any) -> None:
    texts = mixed(7)
    forward, backward = embedder.embed(texts).vectors, embedder.embed(texts[::-1]).vectors[::-1]
    assert all(_cosine(a, b) >= CLOSE for a, b in zip(forward, backward, strict=True))


def test_company_changes_nothing(embedder: Any) -> None:
    texts = mixed(9)
    together = embedder.embed(texts).vectors
    for text, row in zip(texts, together, strict=True):
        assert _cosine(embedder.embed([text]).vectors[0], row) >= CLOSE


def test_many_texts_keep_their_places(embedder: Any) -> None:
    texts = mixed(16) * 5
    got = embedder.embed(texts).vectors
    assert len(got) == 80
    for place in (0, 1, 39, 79):
        assert _cosine(got[place], embedder.embed([texts[place]]).vectors[0]) >= CLOSE


def test_different_texts_have_different_vectors(embedder: Any) -> None:
    a, b = embedder.embed(["a river in spring", "seven green lamps"]).vectors
    assert _cosine(a, b) < 0.99999


def test_normalize_gives_unit_length(embedder: Any) -> None:
    need(embedder.capabilities, "normalize")
    assert _norms(embedder.embed(mixed(4), normalize=True).vectors) == pytest.approx([1.0] * 4, abs=1e-4)


def test_normalize_keeps_the_direction(embedder: Any) -> None:
    need(embedder.capabilities, "normalize")
    bare, unit = (embedder.embed(mixed(4), normalize=choice).vectors for choice in (False, True))
    assert all(_cosine(a, b) >= CLOSE for a, b in zip(bare, unit, strict=True))


def test_without_normalize_vectors_are_bare(embedder: Any) -> None:
    need(embedder.capabilities, "normalize")
    assert any(abs(norm - 1) > 1e-3 for norm in _norms(embedder.embed(mixed(6), normalize=False).vectors))


def test_unknown_roles_are_refused(embedder: Any) -> None:
    with pytest.raises(InvalidInput):
        embedder.embed(["x"], role="poet")


def test_roles_are_honoured_or_refused(embedder: Any) -> None:
    for role in ("query", "document"):
        if role in embedder.capabilities.roles:
            assert len(embedder.embed(["a river"], role=role).vectors) == 1
        else:
            with pytest.raises(InvalidInput):
                embedder.embed(["a river"], role=role)


def test_some_role_makes_a_difference(embedder: Any, target: Any) -> None:
    need(embedder.capabilities, "roles")
    if target.folder and not any(prompts_of(target.folder).values()):
        pytest.skip("capability roles: this checkpoint has no prompts")
    plain = embedder.embed(["a green river"]).vectors[0]
    roles = embedder.capabilities.roles
    others = [embedder.embed(["a green river"], role=role).vectors[0] for role in roles]
    assert any(_cosine(plain, other) < CLOSE for other in others)


def test_fewer_dimensions_are_a_cut_that_is_normalized_again(embedder: Any) -> None:
    need(embedder.capabilities, "dimensions", "normalize")
    full = embedder.embed(mixed(3), normalize=False).vectors
    size = full.shape[1] // 2
    cut = embedder.embed(mixed(3), dimensions=size, normalize=True).vectors
    assert cut.shape == (3, size)
    assert _norms(cut) == pytest.approx([1.0] * 3, abs=1e-4)
    assert all(_cosine(a[:size], b) >= CLOSE for a, b in zip(full, cut, strict=True))


@pytest.mark.parametrize("dimensions", [0, -3, 10_000_000])
def test_impossible_dimensions_are_refused(embedder: Any, dimensions: int) -> None:
    with pytest.raises(MemserveError):
        embedder.embed(["x"], dimensions=dimensions)


def test_usage_counts_every_text_once(embedder: Any) -> None:
    alone = [embedder.embed([text]).usage.prompt_tokens for text in mixed(4)]
    if None in alone:
        pytest.skip("capability usage: prompt tokens are not told")
    assert embedder.embed(mixed(4)).usage.prompt_tokens == sum(alone)


def test_an_empty_text_has_a_finite_vector(embedder: Any) -> None:
    row = embedder.embed(["", "a river"]).vectors[0]
    assert all(math.isfinite(x) for x in row)


def test_a_string_is_never_taken_for_its_letters(embedder: Any) -> None:
    try:
        got = embedder.embed("a river")
    except (InvalidInput, TypeError):
        return
    assert _cosine(got.vectors.reshape(-1), embedder.embed(["a river"]).vectors[0]) >= CLOSE


def test_vectors_equal_sentence_transformers(embedder: Any, target: Any) -> None:
    library = pytest.importorskip(
        "sentence_transformers", reason="capability tasks: sentence-transformers is not here to compare with"
    )
    if target.folder is None:
        pytest.skip("capability model: not a folder, so there is nothing to compare with")
    texts = mixed(12)
    expected = library.SentenceTransformer(str(target.folder), device="cpu").encode(texts)
    got = embedder.embed(texts).vectors
    assert all(_cosine(a, b) >= CLOSE for a, b in zip(expected, got, strict=True))
    assert got == pytest.approx(expected, abs=2e-2)
