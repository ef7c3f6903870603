"""MTEB: a task by the harness's own evaluator, against the same weights in sentence-transformers."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.engine("harnesses"), pytest.mark.filterwarnings("ignore")]
ROWS = {
    "sentence1": ["a cat sat", "the river is wide", "I like tea", "a red car", "he runs"],
    "sentence2": ["a kitten was sitting", "stocks fell", "tea is what I like", "a crimson car", "it is wet"],
    "score": [4.0, 0.0, 5.0, 4.5, 0.5],
}


@pytest.fixture(scope="module")
def encoders(weights):
    from sentence_transformers import SentenceTransformer

    from memserve.adapters.mteb import Encoder

    path = str(weights / "minilm")
    return Encoder(path, backend="hf"), SentenceTransformer(path, device="cpu")


def test_a_task_gives_the_same_score(encoders):
    import mteb
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    class Tiny(AbsTaskSTS):
        metadata = TaskMetadata(
            name="TinySTS", description="five pairs", dataset={"path": "none", "revision": "1"}, type="STS",
            category="t2t", modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="cosine_pearson",
        )  # fmt: skip
        min_score, max_score = 0, 5

        def load_data(self, **unused):
            self.dataset = DatasetDict({"test": Dataset.from_dict(ROWS)})
            self.data_loaded = True

    results = [mteb.evaluate(encoder, Tiny(), cache=None) for encoder in encoders]
    scores = [result.task_results[0].scores["test"][0]["main_score"] for result in results]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert results[0].model_name.endswith("minilm")


def test_it_has_the_shape_of_a_sentence_transformer(encoders):
    ours, theirs = encoders
    texts = ROWS["sentence1"]
    found, wanted = ours.encode(texts), theirs.encode(texts)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert ours.encode(texts[0]) == pytest.approx(theirs.encode(texts[0]), abs=1e-5)
    near = theirs.similarity(wanted, wanted[:2]).numpy()
    assert ours.similarity(found, found[:2]) == pytest.approx(near, abs=1e-5)
    assert ours.similarity_pairwise(found, found) == pytest.approx([1.0] * len(texts), abs=1e-5)
