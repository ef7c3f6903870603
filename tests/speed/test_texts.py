"""Texts a second of embedders and rerankers, held against published rows."""

from __future__ import annotations

import random
from statistics import median

import pytest

from memserve.errors import InvalidInput
from memserve.hardware import parse
from memserve.model import catalogue, load
from memserve.plan import best
from memserve.speed import workloads
from memserve.speed.roofline.forecast import texts_per_s

BASE, LARGE = "facebook/contriever", "BAAI/bge-large-en-v1.5"
PUBLISHED = (
    # NVIDIA/TensorRT demo/BERT/README.md @007c34702bc7, FP16, batch 32: batch / average latency
    ("tensorrt", BASE, "1xT4", 128, 32 / 0.03663), ("tensorrt", BASE, "1xT4", 384, 32 / 0.1149),
    ("tensorrt", LARGE, "1xT4", 128, 32 / 0.12109), ("tensorrt", LARGE, "1xT4", 384, 32 / 0.37087),
    ("tensorrt", BASE, "1xA100-40GB", 128, 32 / 0.0041), ("tensorrt", BASE, "1xA100-40GB", 384, 32 / 0.01351),
    ("tensorrt", LARGE, "1xA100-40GB", 128, 32 / 0.01385),
    ("tensorrt", LARGE, "1xA100-40GB", 384, 32 / 0.04301),
    ("tensorrt", BASE, "1xA30", 128, 32 / 0.00863), ("tensorrt", BASE, "1xA30", 384, 32 / 0.028),
    ("tensorrt", LARGE, "1xA30", 128, 32 / 0.02914), ("tensorrt", LARGE, "1xA30", 384, 32 / 0.08757),
    # michaelfeil/infinity docs/docs/benchmarking.md @0d1c358dc6d2: 256 texts of 449 tokens a request
    ("tei", LARGE, "1xL4", 449, 0.54 * 256), ("infinity", LARGE, "1xL4", 449, 0.51 * 256),
    ("hf", LARGE, "1xL4", 449, 0.17 * 256),
)  # fmt: skip


def predicted(backend, model, gpus, tokens):
    return texts_per_s(load(model), parse(gpus), backend=backend, input_tokens=tokens)


def test_published_rows():
    errors = [abs(predicted(*row[:4]).likely / row[4] - 1) for row in PUBLISHED]
    assert median(errors) <= 0.3
    inside = [found.low <= row[4] <= found.high for row in PUBLISHED for found in [predicted(*row[:4])]]
    assert sum(inside) >= 0.9 * len(inside)


def test_a_small_encoder_on_a_t4_as_locomos_users_saw_it():
    """100 to 200 texts a second in transformers."""
    assert predicted("hf", BASE, "1xT4", 256).low < 200 and predicted("hf", BASE, "1xT4", 256).high > 100


EMBEDDERS = sorted(row.id for row in catalogue.rows() if load(row.id).embeds)


@pytest.mark.parametrize("seed", range(40))
def test_an_embedders_plan_speaks_of_texts(seed):
    draw = random.Random(seed)
    model, gpus = draw.choice(EMBEDDERS), draw.choice(["1xT4", "1xL4", "2xA100", "1xRTX4090@0", "cpu"])
    if load(model).scoring_tokens and gpus == "cpu":
        gpus = "1xL4"  # nothing that is planned unasked on a CPU makes scores of its answers
    tokens, texts = draw.randint(1, 500), draw.randint(1, 10**6)
    found = best(model, gpus, workload=f"{tokens}:0:{texts}").to_dict()
    speed, cost = found["speed"], found["cost"]
    assert 0 < speed["texts_per_s"]["low"] <= speed["texts_per_s"]["likely"] <= speed["texts_per_s"]["high"]
    assert [speed[name] for name in ("ttft_ms", "tpot_ms", "output_tokens_per_s", "output_tokens")] == [
        None
    ] * 4
    assert cost["usd_per_mtok_output"] is None
    hours = texts / speed["texts_per_s"]["likely"] / 3600
    assert found["workload"]["hours"]["likely"] == pytest.approx(hours, rel=0.01)
    if cost["usd_per_hour"] is not None:
        usd = cost["usd_per_mtok_input"] * tokens * texts / 1e6
        assert usd == pytest.approx(cost["usd_per_hour"] * hours, rel=0.02, abs=1e-3)


def test_the_page_has_no_words_of_a_generator():
    page = str(best("facebook/contriever", "1xT4", workload="128:0:2250"))
    assert "texts/s" in page and "million input tokens" in page
    assert "first token" not in page and "output tokens" not in page


def test_a_corpus_in_a_file(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "' + "word " * 80 + '"}\n{"id": 2, "input": "short"}\n')
    found = best("BAAI/bge-m3", "1xL4", workload=str(path))
    assert found.workload["requests"] == 2 and found.workload["output_tokens"] == 0


def test_a_generator_must_write_something():
    with pytest.raises(InvalidInput, match="no output tokens"):
        best("llama-8b", "1xL4", workload="500:0:100")
    assert workloads.find("500:0:100").total_output == 0
