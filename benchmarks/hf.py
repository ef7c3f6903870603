"""transformers' room against transformers itself: tokens a CPU second, side by side.

    python benchmarks/hf.py MODEL [--pairs 9] [--only mixed|prefix|same]

mixed   48 prompts of mixed length, against static batches of 8 and against continuous batching
prefix  3 conversations x 12 questions on a shared prefix of about 600 tokens, against static batches of 8
same    the tokens of `mixed` against greedy decoding one by one
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not look like work
THREADS = 2
STATIC_ROWS = 8
NEW_TOKENS = 64
TASKS = (
    "Summarize this in one sentence.",
    "List the three most important words.",
    "What is this text about?",
    "Write a title for it.",
    "Continue the text.",
    "Which question does this text answer?",
)


def words(count: int, seed: int) -> str:
    """Plain English of a wished length, the same in every run."""
    text = (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8").split()
    start = seed * 41 % len(text)
    return " ".join((text * (2 + count // len(text)))[start : start + count])


def mixed_prompts(round_: int) -> list[str]:
    lengths = [8 + (i * 37) % 193 for i in range(48)]
    return [f"[{round_}] {TASKS[i % len(TASKS)]}\n\n{words(n, i)}" for i, n in enumerate(lengths)]


def prefix_prompts(round_: int) -> list[str]:
    histories = [f"[{round_}] A conversation, number {c}.\n{words(400, 211 * c)}" for c in range(3)]
    return [
        f"{histories[c]}\n\nQuestion {q}: what is said after {words(4, 9 * q)!r}? Answer briefly."
        for c in range(3)
        for q in range(12)
    ]


class Baseline:
    """transformers as its documentation uses it."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.model.generation_config.pad_token_id = self.tokenizer.pad_token_id

    def ids(self, prompt: str) -> list[int]:
        chat = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def static(self, prompts: Sequence[str], tokens: int, rows: int = STATIC_ROWS) -> list[list[int]]:
        answers: list[list[int]] = []
        for start in range(0, len(prompts), rows):
            ids = [self.ids(prompt) for prompt in prompts[start : start + rows]]
            batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
            with self.torch.inference_mode():
                out = self.model.generate(**batch, do_sample=False, max_new_tokens=tokens)
            answers += [self._cut(row) for row in out[:, batch["input_ids"].shape[1] :].tolist()]
        return answers

    def continuous(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        # left alone, it takes most of the machine's memory for its cache
        small = ContinuousBatchingConfig(max_memory_percent=0.1)
        config = GenerationConfig(
            max_new_tokens=tokens, do_sample=False, eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        out = self.model.generate_batch(
            [self.ids(p) for p in prompts],
            generation_config=config,
            progress_bar=False,
            continuous_batching_config=small,
        )
        return [self._cut(list(row.generated_tokens)) for row in out.values()]

    def _cut(self, tokens: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return tokens[: tokens.index(end) + 1] if end in tokens else tokens


class Ours:
    """memserve; the prompts of every round differ in their first word, so that no round helps the next."""

    def __init__(self, model: str) -> None:
        import memserve

        self.generator = memserve.generator(model, backend="hf", dtype="float32", threads=THREADS)

    def __call__(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        return [list(c.token_ids) for c in self.generator.generate(list(prompts), max_tokens=tokens)]


def cpu_seconds(work: Callable[[], list[list[int]]]) -> tuple[float, int]:
    start = time.process_time()
    answers = work()
    return time.process_time() - start, sum(map(len, answers))


def compare(name: str, ours: Ours, theirs: Callable[..., Any], prompts: Callable[[int], list[str]],
            tokens: int, pairs: int) -> dict[str, Any]:  # fmt: skip
    """Tokens a CPU second, ours by theirs, over interleaved pairs; the median is the figure."""
    ratios, rates = [], []
    for pair in range(pairs):
        asked = prompts(pair)
        mine, made = cpu_seconds(partial(ours, asked, tokens))
        other, made_there = cpu_seconds(partial(theirs, asked, tokens))
        ratios.append((made / mine) / (made_there / other))
        rates.append((made / mine, made_there / other))
        print(f"  {name}: {made / mine:.1f} against {made_there / other:.1f} tokens a CPU second, "
              f"{ratios[-1]:.2f} x", flush=True)  # fmt: skip
    return {
        "figure": name, "ratio": round(statistics.median(ratios), 2), "pairs": pairs,
        "ours": round(statistics.median(r[0] for r in rates), 1),
        "theirs": round(statistics.median(r[1] for r in rates), 1),
    }  # fmt: skip


def same(ours: Ours, base: Baseline, prompts: Sequence[str], tokens: int) -> dict[str, Any]:
    """Share of prompts with the tokens of one-by-one decoding; for the others, how close the race was."""
    together = ours(prompts, tokens)
    alone = base.static(prompts, tokens, rows=1)
    differing = [i for i, (a, b) in enumerate(zip(together, alone, strict=True)) if a != b]
    reasons = [_margin(base, prompts[i], together[i], alone[i]) for i in differing]
    return {"figure": "same", "share": 1 - len(differing) / len(prompts), "differing": reasons}


def _margin(base: Baseline, prompt: str, one: list[int], other: list[int]) -> dict[str, Any]:
    """At the first token that differs: the gap between the two logits, against the rounding of float32."""
    at = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    ids = base.ids(prompt) + other[:at]
    with base.torch.inference_mode():
        logits = base.model(base.torch.tensor([ids])).logits[0, -1]
    return {
        "token": at,
        "gap": float(logits[other[at]] - logits[one[at]]),
        "largest": float(logits.abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", choices=("mixed", "continuous", "prefix", "same"))
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(THREADS)
    base, ours = Baseline(given.model), Ours(given.model)
    ours(mixed_prompts(-1)[:2], 2)
    wanted = (given.only,) if given.only else ("mixed", "continuous", "prefix", "same")
    tokens = given.tokens
    if "mixed" in wanted:
        print(json.dumps(compare("mixed", ours, base.static, mixed_prompts, tokens, given.pairs)))
    if "continuous" in wanted:
        print(json.dumps(compare("continuous", ours, base.continuous, mixed_prompts, tokens, given.pairs)))
    if "prefix" in wanted:
        print(json.dumps(compare("prefix", ours, base.static, prefix_prompts, tokens // 2, given.pairs)))
    if "same" in wanted:
        print(json.dumps(same(ours, base, mixed_prompts(0), tokens)))


if __name__ == "__main__":
    main()
