"""The embedded default against transformers on the same file: it computes the model that its file holds."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import memserve

pytestmark = [pytest.mark.engine("hf"), pytest.mark.filterwarnings("ignore")]
NATS = 0.02
COUNT = 24
HOME = Path(os.environ.get("MEMSERVE_ENGINES", Path.home() / ".cache" / "memserve" / "engines"))
FILE = HOME / "weights-1" / "smollm2-gguf" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_likelihoods_are_those_of_transformers() -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(FILE.parent),
        gguf_file=FILE.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    text = Path(random.__file__).read_text(encoding="utf-8")
    draw = random.Random(0)
    with memserve.generator() as generator:
        ids = generator.encode(text)
        places = [draw.randrange(40, len(ids) - 8) for _ in range(COUNT)]
        pairs = [(ids[at - 40 : at], ids[at : at + draw.randint(1, 7)]) for at in places]
        told = generator.score(pairs)
    for (context, continuation), one in zip(pairs, told, strict=True):
        with torch.inference_mode():
            rows = model(torch.tensor([[*context, *continuation]])).logits[0].double().log_softmax(-1)
        own = sum(float(rows[len(context) - 1 + i, token]) for i, token in enumerate(continuation))
        assert abs(own - one.logprob) / len(continuation) <= NATS
