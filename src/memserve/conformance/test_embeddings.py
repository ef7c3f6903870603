"""Vectors: order, norm, role, dimensions, and no difference between alone and in company."""

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memserve.conformance.asking import mixed, need, question
from memserve.conformance.report import prompts_of
from memserve.errors import InvalidInput, MemserveError

CLOSE = 0.9999
NEAR = 0.015
"""Relative distance of two vectors; that of two directions with a cosine of CLOSE."""


def _cosine(a: Any, b: Any) -> float:
    return float((a @ b) / max(1e-12, math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))))


def _distance(a: Any, b: Any) -> float:
    """How far apart, relative to the longer: unlike the cosine it sees a difference in length."""
    longest = max(float(a @ a), float(b @ b), 1e-24)
    return math.sqrt(float((a - b) @ (a - b)) / longest)


def _norms(vectors: Any) -> list[float]:
    return [math.sqrt(float(row @ row)) for row in vectors]


def test_one_float32_row_a_text(embedder: Any) -> None:
    got = embedder.embed(mixed(5))
    assert got.vectors.shape[0] == 5
    assert got.vectors.ndim == 2
    assert got.vectors.dtype.name == "float32"
    assert all(math.isfinite(x) for row in got.vectors for x in row)


def test_no_texts_no_vectors(embedder: Any) -> None:
    got = embedder.embed([])
    assert len(got.vectors) == 0
    assert got.vectors.ndim == 2
    assert got.vectors.dtype.name == "float32"


def test_vectors_come_in_the_order_of_their_texts(embedder: Any) -> None:
    texts = mixed(7)
    forward, backward = embedder.embed(texts).vectors, embedder.embed(texts[::-1]).vectors[::-1]
    assert all(_distance(a, b) <= NEAR for a, b in zip(forward, backward, strict=True))


def test_company_changes_nothing(embedder: Any) -> None:
    texts = mixed(9)
    together = embedder.embed(texts).vectors
    for text, row in zip(texts, together, strict=True):
        alone = embedder.embed([text]).vectors
        assert alone.shape == (1, len(row))
        assert _distance(alone[0], row) <= NEAR


def test_many_texts_keep_their_places(embedder: Any) -> None:
    few = [question(n, 2 + n % 4) for n in range(16)]
    got = embedder.embed(few * 9).vectors
    assert len(got) == 144
    alone = [embedder.embed([text]).vectors[0] for text in few]
    assert all(_distance(row, alone[place % 16]) <= NEAR for place, row in enumerate(got))


def test_vectors_repeat_and_stay(embedder: Any) -> None:
    """What was handed out is the caller's: a later call neither differs nor writes into it."""
    first = embedder.embed(mixed(3)).vectors
    kept = first.copy()
    embedder.embed(mixed(6)[3:])
    assert (first == kept).all()
    assert all(_distance(a, b) <= NEAR for a, b in zip(kept, embedder.embed(mixed(3)).vectors, strict=True))


def test_awaiting_gives_the_same(embedder: Any) -> None:
    can, texts = embedder.capabilities, mixed(5)
    ways: list[dict[str, Any]] = [{}, *({"role": role} for role in sorted(can.roles))]
    ways += [{"normalize": True}] * can.normalize + [{"dimensions": 8}] * can.dimensions
    for how in ways:
        told, called = (
            asyncio.run(embedder.aembed(texts, **how)).vectors,
            embedder.embed(texts, **how).vectors,
        )
        assert told.shape == called.shape
        assert all(_distance(a, b) <= NEAR for a, b in zip(told, called, strict=True))


def test_threads_do_not_mix_vectors(embedder: Any) -> None:
    texts = [question(n) for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda text: embedder.embed([text]).vectors[0], texts))
    alone = [embedder.embed([text]).vectors[0] for text in texts]
    assert all(_distance(a, b) <= NEAR for a, b in zip(got, alone, strict=True))


def test_every_word_is_read(embedder: Any) -> None:
    words = question(3, 36)
    rows = embedder.embed([words, "lamp " + words, words + " lamp"]).vectors
    assert _distance(rows[0], rows[1]) > 1e-5
    assert _distance(rows[0], rows[2]) > 1e-5


def test_case_is_the_tokenizers_affair(embedder: Any, oracle: Any) -> None:
    texts = ["A Green RIVER", "a green river"]
    if oracle is None or oracle.encode(texts[0]) == oracle.encode(texts[1]):
        pytest.skip("capability model: its tokenizer does not tell capitals apart, as far as is known")
    rows = embedder.embed(texts).vectors
    assert _distance(rows[0], rows[1]) > 1e-5


def test_only_strings_are_embedded(embedder: Any) -> None:
    for text in (3, None, b"bytes"):
        with pytest.raises((InvalidInput, TypeError)):
            embedder.embed([text])


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


def test_normalizing_by_default_is_the_models_own(embedder: Any, target: Any) -> None:
    need(embedder.capabilities, "normalize")
    modules = target.folder and target.folder / "modules.json"
    if not modules or not modules.exists():
        pytest.skip("capability normalize: no modules.json that says what the model does")
    own = "Normalize" in modules.read_text(encoding="utf-8")
    default, chosen = (embedder.embed(mixed(4), normalize=choice).vectors for choice in (None, own))
    assert all(_distance(a, b) <= NEAR for a, b in zip(default, chosen, strict=True))


def test_a_role_is_for_every_text(embedder: Any) -> None:
    need(embedder.capabilities, "roles")
    texts = mixed(4)
    for role in sorted(embedder.capabilities.roles):
        together = embedder.embed(texts, role=role).vectors
        for text, row in zip(texts, together, strict=True):
            assert _distance(embedder.embed([text], role=role).vectors[0], row) <= NEAR


def test_a_role_is_the_checkpoints_prompt(embedder: Any, target: Any) -> None:
    need(embedder.capabilities, "roles")
    prompts = prompts_of(target.folder) if target.folder else {}
    if not any(prompts.get(role) for role in embedder.capabilities.roles) or _leaves_out_prompts(target):
        pytest.skip("capability roles: no prompts to compare with beside this model")
    for role in sorted(embedder.capabilities.roles & set(prompts)):
        (told,) = embedder.embed(["a green river"], role=role).vectors
        (spelled,) = embedder.embed([prompts[role] + "a green river"]).vectors
        assert _distance(told, spelled) <= NEAR


def _leaves_out_prompts(target: Any) -> bool:
    """Some models read the prompt and leave it out of the mean."""
    pooling = target.folder / "1_Pooling" / "config.json"
    return pooling.exists() and json.loads(pooling.read_text(encoding="utf-8")).get("include_prompt") is False


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
    bare = embedder.embed(mixed(3), dimensions=size, normalize=False).vectors
    assert all(_distance(a[:size], b) <= NEAR for a, b in zip(full, bare, strict=True))
    assert {cut.dtype.name, bare.dtype.name} == {"float32"}


def test_one_dimension_too_many_is_refused(embedder: Any) -> None:
    need(embedder.capabilities, "dimensions")
    size = embedder.embed(["x"]).vectors.shape[1]
    assert embedder.embed(["x"], dimensions=size).vectors.shape == (1, size)
    with pytest.raises(MemserveError):
        embedder.embed(["x"], dimensions=size + 1)


@pytest.mark.parametrize("dimensions", [0, -3, 10_000_000])
def test_impossible_dimensions_are_refused(embedder: Any, dimensions: int) -> None:
    with pytest.raises(MemserveError):
        embedder.embed(["x"], dimensions=dimensions)


def test_usage_counts_every_text_once(embedder: Any, oracle: Any) -> None:
    alone = [embedder.embed([text]).usage.prompt_tokens for text in mixed(4)]
    if None in alone:
        pytest.skip("capability usage: prompt tokens are not told")
    assert embedder.embed(mixed(4)).usage.prompt_tokens == sum(alone)
    short, longer = (embedder.embed([question(2, size)]).usage.prompt_tokens for size in (2, 12))
    assert longer >= short + 10
    if oracle:
        counted = [len(oracle.encode(text)) for text in mixed(4)]
        assert all(abs(a - b) <= 2 for a, b in zip(alone, counted, strict=True)), "tokens, not anything else"


def test_an_empty_text_has_a_finite_vector(embedder: Any) -> None:
    rows = embedder.embed(["", "a river", ""]).vectors
    assert len(rows) == 3
    assert all(math.isfinite(x) for row in rows for x in row)
    assert _distance(rows[1], embedder.embed(["a river"]).vectors[0]) <= NEAR


def test_a_string_is_never_taken_for_its_letters(embedder: Any) -> None:
    expected = embedder.embed(["a river"]).vectors[0]
    try:
        got = embedder.embed("a river").vectors.reshape(-1)
    except (InvalidInput, TypeError):
        got = None
    assert got is None or _cosine(got, expected) >= CLOSE


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


# ---------------------------------------------------------------------- rerank


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
