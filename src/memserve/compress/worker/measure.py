"""What a model costs and knows: perplexity by windows, KL, greedy agreement, bytes, decode speed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memserve.compress.worker.model import folder_of, opened, tokenizer, weight_bytes, windows

ANSWER = 32
"""Greedy tokens that are compared."""
PROMPTS = 2


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The original, whose answers are kept for comparison, or a result that is compared with them."""
    folder = folder_of(job["model"])
    began = time.perf_counter()
    model = opened(folder)
    load = time.perf_counter() - began
    kept = Path(job["kept"])
    if job["original"]:
        text = Path(job["text"]).read_text(encoding="utf-8")
        ids = windows(tokenizer(folder), text, job["window"], job["windows"])
        said = [_greedy(model, one[:ANSWER])[0] for one in ids[:PROMPTS]]
        (kept / "ids.json").write_text(json.dumps({"windows": ids, "said": said}), encoding="utf-8")
    ids, said = read(kept)
    found = compare(lambda one: _logits(model, one), ids, said, kept, original=job["original"])
    seconds = _greedy(model, ids[0][:ANSWER])[1]
    questions = job.get("questions")
    more = {"eval": _right(model, tokenizer(folder), questions)} if questions else {}
    return {
        "folder": folder, "bytes": weight_bytes(folder), "tokens_per_s": round(ANSWER / seconds, 3),
        "load_seconds": round(load, 3), **found, **more,
    }  # fmt: skip


def read(kept: Path) -> tuple[list[list[int]], list[list[int]]]:
    """The judged windows and what the original said after the first of them."""
    rows = json.loads((kept / "ids.json").read_text(encoding="utf-8"))
    return rows["windows"], rows["said"]


def compare(logits: Callable[[list[int]], Any], ids: Sequence[list[int]], said: Sequence[list[int]],
            kept: Path, *, original: bool) -> dict[str, Any]:  # fmt: skip
    """Perplexity; beside the original's log-probabilities (kept in 16 bits) KL and greedy agreement."""
    import numpy as np

    nll, tokens, kl = 0.0, 0, 0.0
    for number, one in enumerate(ids):
        mine = _log_softmax(logits(one)[:-1])
        nll -= float(mine[np.arange(len(one) - 1), one[1:]].sum(dtype=np.float64))
        tokens += len(one) - 1
        file = kept / f"{number}.npy"
        if original:
            np.save(file, mine.astype(np.float16))
        else:
            theirs = np.load(file).astype(np.float32)
            kl += float((np.exp(theirs) * (theirs - mine)).sum(dtype=np.float64))
    same = [_agreement(logits(one[:ANSWER] + answer), answer) for one, answer in zip(ids, said, strict=False)]
    perplexity = math.exp(min(nll / tokens, 700.0))
    return {"perplexity": perplexity, "tokens": tokens, "windows": len(ids), "kl": max(0.0, kl / tokens),
            "greedy_agreement": sum(same) / len(same)}  # fmt: skip


def _agreement(logits: Any, answer: Sequence[int]) -> float:
    """The share of the original's tokens that are this model's choice, too, after those before them."""
    chosen = logits[-len(answer) - 1 : -1].argmax(-1).tolist()
    return float(sum(mine == theirs for mine, theirs in zip(chosen, answer, strict=True)) / len(answer))


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        given = torch.tensor([ids], device=model.device)
        return model(input_ids=given, use_cache=False).logits[0].float().cpu().numpy()


def _greedy(model: Any, ids: list[int]) -> tuple[list[int], float]:
    """The next tokens, none of them an end, and the seconds that they took."""
    import torch

    given = torch.tensor([ids], device=model.device)
    words = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False,
             "attention_mask": torch.ones_like(given)}  # fmt: skip
    began = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(given, **words)
    return out[0, len(ids) :].tolist(), time.perf_counter() - began


def _right(model: Any, words: Any, questions: Sequence[dict[str, Any]]) -> float:
    """The share of one's own questions whose answer holds what is expected."""
    import torch

    right = 0
    for one in questions:
        messages = (
            [{"role": "user", "content": one["prompt"]}] if isinstance(one["prompt"], str) else one["prompt"]
        )
        text = words.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        given = words(text, return_tensors="pt", add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            out = model.generate(**given, max_new_tokens=one["max_tokens"], do_sample=False)
        answer = words.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        right += str(one["expected"]).lower() in answer.lower()
    return right / len(questions)
