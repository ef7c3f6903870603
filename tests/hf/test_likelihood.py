"""Likelihoods and ids against transformers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import memserve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine("hf")
CONTEXT = 32
CHAT = [{"role": "user", "content": "seven green lamps"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_hf

    return tiny_hf.causal(tmp_path_factory.mktemp("scored"), bos=True)


@pytest.fixture(scope="module")
def generator(folder):
    with memserve.generator(str(folder), backend="hf", dtype="float32", context=CONTEXT) as held:
        yield held


@pytest.fixture(scope="module")
def by_hand(folder):
    """The log-likelihood of ids after ids, and the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def likelihood(before, after):
        with torch.inference_mode():
            rows = model(torch.tensor([[*before, *after]])).logits[0].log_softmax(dim=-1)
        return sum(float(rows[len(before) + i - 1][token]) for i, token in enumerate(after))

    return likelihood, AutoTokenizer.from_pretrained(folder)


def test_messages_and_ids_as_context(generator, by_hand):
    likelihood, tokenizer = by_hand
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    asked = tokenizer.encode(chat, add_special_tokens=False)
    river = tokenizer.encode("the river", add_special_tokens=False)
    pairs = [(CHAT, "the river"), (asked, river), ([1, 5], river), ("old bridge", river)]
    wanted = [(asked, river), (asked, river), ([1, 5], river), (tokenizer.encode("old bridge"), river)]
    scores = generator.score(pairs)
    assert [one.tokens for one in scores] == [2] * 4
    for one, pair in zip(scores, wanted, strict=True):
        assert one.logprob == pytest.approx(likelihood(*pair), abs=1e-4)


@pytest.mark.parametrize("window", [None, CONTEXT, 7, 1])
def test_a_long_text_in_windows(generator, by_hand, window):
    likelihood, tokenizer = by_hand
    text = "the river runs past an old stone bridge while seven green lamps stand " * 5
    ids, width = tokenizer.encode(text, add_special_tokens=False), window or CONTEXT
    total = 0.0
    for start in range(0, len(ids), width):
        after = ids[start : start + width]
        before = [1] if start == 0 else ids[start + len(after) - width - 1 : start]
        total += likelihood(before, after)
    long, short = generator.score_text([text, "the"], window=window)
    assert (long.tokens, short.tokens) == (len(ids), 1)
    assert long.logprob == pytest.approx(total, abs=1e-3)
    assert short.logprob == pytest.approx(likelihood([1], tokenizer.encode("the")[1:]), abs=1e-4)


def test_ids_are_the_tokenizers_own(generator, by_hand):
    _, tokenizer = by_hand
    for text in ("the river", "<s> old </s> window", "", "seven"):
        assert generator.encode(text) == tokenizer.encode(text, add_special_tokens=False)
        assert generator.decode(generator.encode(text)).split() == text.split()
    with pytest.raises(memserve.errors.InvalidInput, match="vocabulary"):
        generator.decode([10**6])
    assert generator.decode([]) == ""
