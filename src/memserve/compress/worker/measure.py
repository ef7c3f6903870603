"""What a model costs and knows: perplexity by windows, KL, greedy agreement, bytes, decode speed."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memserve.compress.worker.model import WEIGHTS, folder_of, opened, tokenizer, windows

ANSWER = 32
"""Greedy tokens that are compared."""
PROMPTS = 2


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The original, whose answers are kept, or a result that is compared with them."""
    torch.set_grad_enabled(False)
    folder, kept, began = folder_of(job["model"]), Path(job["kept"]), time.perf_counter()
    model, words = opened(folder), tokenizer(folder)
    load = time.perf_counter() - began
    if job["original"]:
        ids = windows(words, job["text"], job["window"], job["windows"])
        said = [_greedy(model, one[:ANSWER])[0] for one in ids[:PROMPTS]]
        (kept / "ids.json").write_text(json.dumps([ids, said]), encoding="utf-8")
        asked = [_asked(words, one["prompt"]) for one in job["questions"]]
        (kept / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    ids, said = read(kept)
    found = compare(lambda one: _logits(model, one), ids, said, kept, original=job["original"])
    found |= own_task(lambda given, most: _answer(model, words, given, most), job)
    size = sum(path.stat().st_size for path in Path(folder).iterdir() if path.name.endswith(WEIGHTS))
    pace = ANSWER / _greedy(model, ids[0][:ANSWER])[1]
    return {"folder": folder, "bytes": size, "tokens_per_s": round(pace, 3), "load_seconds": round(load, 3),
            **found}  # fmt: skip


def read(kept: Path) -> tuple[list[list[int]], list[list[int]]]:
    """The judged windows, and what the original said after the first of them."""
    ids, said = json.loads((kept / "ids.json").read_text(encoding="utf-8"))
    return ids, said


def compare(logits: Callable[[list[int]], Any], ids: Sequence[list[int]], said: Sequence[list[int]],
            kept: Path, *, original: bool) -> dict[str, Any]:  # fmt: skip
    """Perplexity; beside the original's log-probabilities (kept in 16 bits) KL and greedy agreement."""
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
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _logits(model: Any, ids: list[int]) -> Any:
    given = torch.tensor([ids], device=model.device)
    return model(input_ids=given, use_cache=False).logits[0].float().cpu().numpy()


def _greedy(model: Any, ids: list[int]) -> tuple[list[int], float]:
    """The next tokens, none of them an end, and the seconds that they took."""
    given = torch.tensor([ids], device=model.device)
    words = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False,
             "attention_mask": torch.ones_like(given)}  # fmt: skip
    began = time.perf_counter()
    out = model.generate(given, **words)
    return out[0, len(ids) :].tolist(), time.perf_counter() - began


def own_task(answer: Callable[[list[int], int], str], job: dict[str, Any]) -> dict[str, float]:
    """The share of one's own questions that are answered right; nothing where none are asked."""
    file, questions = Path(job["kept"]) / "asked.json", job["questions"]
    asked = json.loads(file.read_text(encoding="utf-8")) if questions else []
    right = [is_right(answer(ids, one["max_tokens"]), one["expected"])
             for ids, one in zip(asked, questions, strict=True)]  # fmt: skip
    return {"eval": sum(right) / len(right)} if right else {}


def is_right(answer: str, expected: Sequence[str]) -> bool:
    """Whether it holds one of these, not as a part of a longer word or number."""
    words = (rf"(?<![a-z0-9]){re.escape(one.lower())}(?![a-z0-9])" for one in expected)
    return any(re.search(one, answer.lower()) for one in words)


def _asked(words: Any, prompt: Any) -> list[int]:
    """A question's tokens, by the chat template where the model has one."""
    talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if words.chat_template:
        text = words.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        return list(words(text, add_special_tokens=False)["input_ids"])
    return list(words("\n".join(str(one.get("content") or "") for one in talk))["input_ids"])


def _answer(model: Any, words: Any, ids: list[int], most: int) -> str:
    given = torch.tensor([ids], device=model.device)
    out = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=most, do_sample=False)
    return str(words.decode(out[0, len(ids) :], skip_special_tokens=True))
