"""Drafts and adapters beside a model: counted as the engines' own formulas have them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from starts import GIB, config, model

from memserve.plan import check

LLAMA = "meta-llama--Llama-3.1-8B-Instruct"
HIDDEN, INNER, HEADS = 4096, 14336, 128256
EAGLE3 = 32000 + 3 * HIDDEN + HIDDEN + 2 * 1024
"""Rows of its head, of what joins three hidden states, and of queries, keys and values for the embedding."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A target and drafts of one layer: EAGLE, and EAGLE-3 with a head of its own."""
    whole = config(LLAMA)
    layer = {**whole, "num_hidden_layers": 1}
    kinds = {"target": whole, "eagle": {**layer, "architectures": ["LlamaForCausalLMEagle"]},
             "eagle3": {**layer, "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000},
             "small": {**layer, "num_hidden_layers": 2}}  # fmt: skip
    for name, fields in kinds.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(fields))
    return tmp_path


def started(folder: Path, *words: str, engine: str = "vllm", gpus: str = "1xH100"):
    start = {
        "vllm": ["vllm", "serve", str(folder / "target")],
        "sglang": ["python", "-m", "sglang.launch_server", "--model-path", str(folder / "target")],
    }[engine]
    return check([*start, *words], gpus)


def layer_gib() -> float:
    (one, *_) = model(LLAMA).blocks
    return sum(weight.parameters for weight in one.weights) * 2 / GIB


def speculative(folder: Path, name: str, method: str) -> list[str]:
    return ["--speculative-config", json.dumps({"model": str(folder / name), "method": method,
                                                "num_speculative_tokens": 3})]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "method", "matrices"),
    [("eagle", "eagle", 2 * HIDDEN), ("eagle3", "eagle3", EAGLE3), ("small", "draft_model", 2 * HEADS)],
)
def test_a_draft_adds_its_layers_their_cache_and_what_it_does_not_share(
    folder: Path, name: str, method: str, matrices: int
) -> None:
    alone, both = started(folder), started(folder, *speculative(folder, name, method))
    layers = 2 if name == "small" else 1
    added = both.memory_gib_per_card["weights"] - alone.memory_gib_per_card["weights"]
    assert added == pytest.approx(layers * layer_gib() + matrices * HIDDEN * 2 / GIB, abs=0.02)
    a_token = [p.memory_gib_per_card["kv_cache"] / p.kv_cache_tokens for p in (alone, both)]
    assert a_token[1] / a_token[0] == pytest.approx(1 + layers / 32, rel=0.002)


def test_a_draft_that_cannot_be_read_is_not_counted_and_named(folder: Path) -> None:
    both = started(folder, *speculative(folder, "nowhere", "eagle3"))
    assert both.memory_gib_per_card["weights"] == started(folder).memory_gib_per_card["weights"]
    assert [one.name for one in both.not_counted] == ["speculative-config"]


def test_sglang_counts_a_named_draft(folder: Path) -> None:
    words = ["--speculative-algorithm", "EAGLE3", "--speculative-draft-model-path", str(folder / "eagle3"),
             "--mem-fraction-static", "0.8"]  # fmt: skip
    alone = started(folder, "--mem-fraction-static", "0.8", engine="sglang")
    both = started(folder, *words, engine="sglang")
    added = both.memory_gib_per_card["weights"] - alone.memory_gib_per_card["weights"]
    assert added == pytest.approx(layer_gib() + EAGLE3 * HIDDEN * 2 / GIB, abs=0.02)
    assert both.kv_cache_tokens < alone.kv_cache_tokens * 32 / 33


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_loras_buffers_are_both_factors_of_every_matrix(folder: Path, engine: str) -> None:
    most = "--max-loras" if engine == "vllm" else "--max-loras-per-batch"
    words = ["--enable-lora", most, "4", "--max-lora-rank", "64"]
    alone, both = started(folder, engine=engine), started(folder, *words, engine=engine)
    attention = 2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + 1024)
    ffn = 2 * (HIDDEN + INNER) + INNER + HIDDEN
    told = both.memory_gib_per_card["weights"] - alone.memory_gib_per_card["weights"]
    assert told == pytest.approx(32 * 4 * 64 * (attention + ffn) * 2 / GIB, rel=0.02)
