"""Vectors equal sentence-transformers', whatever the checkpoint's files ask for; rerankers likewise."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_hf import encoder, modules

import memserve
from memserve import errors

pytestmark = pytest.mark.engine("hf")

TEXTS = [
    "the old stone bridge",
    "seven green lamps stand under the window " * 12,
    "a",
    "",
    "the river runs past",
]


def reference(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def opened(folder, **options):
    return memserve.embedder(str(folder), backend="hf", **options)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"])
def test_pooling_is_the_checkpoints_own(tmp_path, mode, packed):
    suffix = {"cls": "cls_token", "lasttoken": "lasttoken"}.get(mode, f"{mode}_tokens")
    modules(encoder(tmp_path), "Transformer", "Pooling", pooling={f"pooling_mode_{suffix}": True})
    with opened(tmp_path, packed=packed) as embedder:
        made = embedder.embed(TEXTS).vectors
    np.testing.assert_allclose(made, reference(tmp_path).encode(TEXTS), atol=2e-5)


def test_texts_that_are_cut_are_told(tmp_path, caplog):
    modules(encoder(tmp_path), "Transformer", "Pooling")
    with opened(tmp_path, max_length=16) as embedder:
        embedder.embed(["a river", "the river runs past"])
        assert "longer" not in caplog.text
        embedder.embed(["a river", "the river runs past " * 12])
    assert "1 of 2 texts are longer than 16 tokens" in caplog.text


def test_several_poolings_stand_side_by_side(tmp_path):
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    modules(encoder(tmp_path), "Transformer", "Pooling", pooling=both)
    with opened(tmp_path) as embedder:
        made = embedder.embed(TEXTS).vectors
    np.testing.assert_allclose(made, reference(tmp_path).encode(TEXTS), atol=2e-5)


def test_dense_heads_and_normalization_follow_the_modules(tmp_path):
    modules(encoder(tmp_path), "Transformer", "Pooling", "Dense", "Normalize")
    with opened(tmp_path) as embedder:
        made = embedder.embed(TEXTS)
        bare = embedder.embed(TEXTS, normalize=False)
    assert made.vectors.shape == (5, 16)
    np.testing.assert_allclose(made.vectors, reference(tmp_path).encode(TEXTS), atol=2e-5)
    assert not np.allclose(np.linalg.norm(bare.vectors, axis=1), 1)


def test_roles_put_their_prompts_first(tmp_path):
    prompts = {"query": "the river ", "document": "green lamps ", "other": "old "}
    modules(encoder(tmp_path), "Transformer", "Pooling", prompts=prompts)
    model = reference(tmp_path)
    with opened(tmp_path) as embedder:
        query = embedder.embed(TEXTS, role="query").vectors
        document = embedder.embed(TEXTS, role="document").vectors
        other = embedder.embed(TEXTS, role="other").vectors
        with pytest.raises(errors.InvalidInput):
            embedder.embed(TEXTS, role="judge")
    np.testing.assert_allclose(query, model.encode_query(TEXTS), atol=2e-5)
    np.testing.assert_allclose(document, model.encode_document(TEXTS), atol=2e-5)
    np.testing.assert_allclose(other, model.encode(TEXTS, prompt_name="other"), atol=2e-5)


def test_a_prompt_may_be_left_out_of_pooling(tmp_path):
    pooling = {"pooling_mode_mean_tokens": True, "include_prompt": False}
    modules(encoder(tmp_path), "Transformer", "Pooling", pooling=pooling, prompts={"query": "the river "})
    with opened(tmp_path) as embedder:
        made = embedder.embed(TEXTS[:2], role="query").vectors
    np.testing.assert_allclose(made, reference(tmp_path).encode_query(TEXTS[:2]), atol=2e-5)


def test_a_bare_encoder_means_its_tokens(tmp_path):
    encoder(tmp_path, "Roberta", max_position_embeddings=258)
    with opened(tmp_path) as embedder:
        made = embedder.embed(TEXTS).vectors
    np.testing.assert_allclose(made, reference(tmp_path).encode(TEXTS), atol=2e-5)


def test_shorter_vectors_are_cut_and_made_unit_again(tmp_path):
    modules(encoder(tmp_path), "Transformer", "Pooling", "Normalize")
    with opened(tmp_path) as embedder:
        whole, short = embedder.embed(TEXTS).vectors, embedder.embed(TEXTS, dimensions=8).vectors
        with pytest.raises(errors.InvalidInput):
            embedder.embed(TEXTS, dimensions=33)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-6)


def test_dpr_gives_the_poolers_vector_of_each_side(tmp_path):
    import torch
    from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

    documents = encoder(tmp_path / "documents", "DPR", "ContextEncoder")
    queries = encoder(tmp_path / "queries", "DPR", "QuestionEncoder")
    with opened(documents, query_model=str(queries)) as embedder:
        made = {role: embedder.embed(["the river"], role=role).vectors for role in ("query", "document")}
    words = AutoTokenizer.from_pretrained(documents)(
        "the river", return_tensors="pt", return_token_type_ids=False
    )
    for role, kind, folder in (
        ("document", DPRContextEncoder, documents),
        ("query", DPRQuestionEncoder, queries),
    ):
        with torch.inference_mode():
            wanted = kind.from_pretrained(folder)(**words).pooler_output
        np.testing.assert_allclose(made[role], wanted.numpy(), atol=2e-5)


def test_usage_counts_no_padding(tmp_path):
    modules(encoder(tmp_path), "Transformer", "Pooling")
    with opened(tmp_path) as embedder:
        assert embedder.embed(["the river", "a"]).usage.prompt_tokens == 5
        assert embedder.embed(["river " * 500]).usage.prompt_tokens == 64


def test_an_unknown_module_is_refused(tmp_path):
    modules(encoder(tmp_path), "Transformer", "CNN")
    with pytest.raises(errors.Unsupported, match="CNN"):
        opened(tmp_path)


def test_rerank_scores_equal_a_cross_encoders(tmp_path):
    from sentence_transformers import CrossEncoder

    encoder(tmp_path, head="ForSequenceClassification", num_labels=1)
    documents = TEXTS[:3] + TEXTS[4:]
    with memserve.reranker(str(tmp_path), backend="hf") as reranker:
        made = reranker.rerank("which bridge", documents)
    wanted = CrossEncoder(str(tmp_path), device="cpu").predict([("which bridge", text) for text in documents])
    np.testing.assert_allclose(made.scores, wanted, atol=2e-5)


def test_a_classifier_of_many_labels_is_no_reranker(tmp_path):
    encoder(tmp_path, head="ForSequenceClassification", num_labels=3)
    with pytest.raises(errors.ModelUnreadable, match="one label"):
        memserve.reranker(str(tmp_path), backend="hf")
