"""vLLM's cross-encoders give the scores that transformers gives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import memserve

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
QUERY = "which river is green"
DOCUMENTS = ["a green river", "seven lamps stand under the window", "the old stone bridge"]


def test_scores_are_the_models_own(tmp_path: Path) -> None:
    """A random head on a real tokenizer: the numbers mean nothing, and must agree."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(HOME / "weights-1" / "minilm" / name, tmp_path / name)
    torch.manual_seed(3)
    config = BertConfig(vocab_size=30522, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=128, max_position_embeddings=128, num_labels=1,
                        initializer_range=0.3)  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    read = tokenizer([QUERY] * 3, DOCUMENTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = torch.sigmoid(model(**read).logits[:, 0]).tolist()
    with memserve.reranker(str(tmp_path), backend="vllm", dtype="float32") as reranker:
        told = reranker.rerank(QUERY, DOCUMENTS)
        assert reranker.rerank(QUERY, []).scores == ()
    assert told.scores == pytest.approx(wanted, abs=1e-4)
    assert told.usage.prompt_tokens == int(read["attention_mask"].sum())
