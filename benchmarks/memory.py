"""Memory: what was asked for, what memserve reaches, and what peers say, on real start-ups.

python benchmarks/memory.py            the table of figures
python benchmarks/memory.py --all      and every start, with its errors
python benchmarks/memory.py --copy     renew the copy that the tests use
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from math import isnan
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from memory_peers import PEERS
from memory_rows import CHECKPOINT, ENGINES, OTHERS, SEEN, Row, config, copy, rows, written

from memserve.errors import MemserveError
from memserve.hardware import parse
from memserve.hardware.machine import GIB
from memserve.memory.training import need
from memserve.model import load
from memserve.plan import check

if TYPE_CHECKING:
    from memserve.plan.plan import Plan

ASKED = {
    "weights": ("weights per card, mean error", 0.6), "kv mean": ("memory left for KV, mean error", 1.0),
    "kv worst": ("memory left for KV, worst", 4.0), "tokens": ("KV tokens, median error", 1.5),
    "tokens worst": ("KV tokens, worst", 6.0),
}  # fmt: skip
PEFT = {
    "LoRA, rank 32 on q and v": (
        {"method": "lora", "lora_rank": 32, "lora_targets": ("q_proj", "v_proj")},
        20.76,
    ),
    "full, bfloat16 with AdamW": ({"method": "full"}, 36.20),
}
"""GiB at most: peft's method_comparison, Llama-3.2-3B on an L40S, four sequences of at most 768 tokens."""
KINDS = {("vllm", False): 1.0, ("vllm", True): 4.0, ("vllm-ascend", None): 4.0, ("sglang", None): 4.0}
"""Percent asked for by engine and by whether the model sees or hears."""


@dataclass(frozen=True)
class Judged:
    """A start and memserve's answer; None where it could not read the model."""

    row: Row
    plan: Plan | None
    why: str = ""

    def error(self, figure: str) -> float | None:
        """Percent of the measured figure, signed."""
        measured = getattr(self.row, figure)
        if self.plan is None or not measured:
            return None
        if figure == "kv_tokens":
            return 100 * ((self.plan.kv_cache_tokens or 0) / measured - 1)
        return 100 * float((self.plan.memory_gib_per_card or {})[figure] / measured - 1)

    @property
    def images(self) -> bool:
        """The model has an encoder beside its language model."""
        return self.plan is not None and bool(self.plan.model.towers)

    def overhead(self) -> float | None:
        """GiB told above what budget less weights less KV cache was."""
        row = self.row
        if self.plan is None or not (row.weights and row.kv_cache) or row.outcome != "runs":
            return None
        told = self.plan.memory_gib_per_card or {}
        return row.weights + row.kv_cache - told["weights"] - told["kv_cache"]

    @property
    def right(self) -> bool:
        """The outcome is the one that was seen."""
        return self.plan is not None and self.plan.outcome == self.row.outcome


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="memserve-configs-"))


def judge(row: Row) -> Judged:
    """Ask memserve about one start."""
    path = _folder() / f"{row.config.replace('/', '_')}"
    if not path.exists():
        path.write_text(json.dumps(config(row)), encoding="utf-8")
    words = [str(path) if word == "MODEL" else word for word in row.command]
    try:
        machine = parse(row.gpus)
        free = (round((row.free_gib or 0) * GIB),) * machine.cards_per_node if row.free_gib else None
        machine = replace(machine, free_memory=free)
        plan = check(words, machine, engine_version=row.version, memory_gib_per_card=row.memory_gib)
    except MemserveError as error:
        return Judged(row, None, str(error))
    return Judged(row, plan)


def errors(judged: list[Judged], figure: str) -> list[float]:
    """Absolute errors of one figure, in percent."""
    found = (one.error(figure) for one in judged)
    return [abs(error) for error in found if error is not None]


def h100(judged: list[Judged]) -> None:
    """The figures of the vLLM 0.19 starts."""
    ran = [one for one in judged if one.row.outcome == "runs"]
    kv, tokens = errors(ran, "kv_cache"), errors(ran, "kv_tokens")
    got = {
        "weights": mean(errors(ran, "weights")), "kv mean": mean(kv), "kv worst": max(kv),
        "tokens": median(tokens), "tokens worst": max(tokens),
    }  # fmt: skip
    print(f"vLLM 0.19.0 on H100: {len(ran)} starts")
    for key, (name, asked) in ASKED.items():
        line(name, f"<= {asked:.1f} %", f"{got[key]:.2f} %", got[key] <= asked)
    print("  beside peers (mean error of weights, of KV memory):")
    for name, answer in PEERS.items():
        pairs = [(answer(one.plan), one.row) for one in ran if one.plan is not None]
        weights = mean(abs(a.weights / r.weights - 1) for a, r in pairs if r.weights)
        kv_errors = [abs(a.kv_cache / r.kv_cache - 1) for a, r in pairs if r.kv_cache]
        kv_text = "no figure" if any(map(isnan, kv_errors)) else f"{100 * mean(kv_errors):.2f} %"
        print(f"    {name:22} {100 * weights:6.2f} %   {kv_text}")


def logs(judged: list[Judged]) -> None:
    """The figures of the public logs, tiers A and B, class by class."""
    scored = [one for one in judged if one.row.scored]
    stopped = [one for one in scored if one.row.outcome != "runs"]
    print(f"public logs, tiers A and B: {len(scored)} starts")
    for name, seen, least in (("outcome", scored, 95.0), ("refusals and out of memory", stopped, 88.0)):
        share = 100 * mean(one.right for one in seen)
        line(f"{name} ({len(seen)})", f">= {least:.0f} %", f"{share:.1f} %", share >= least)
        own = 100 * mean(one.right and one.row.id not in CHECKPOINT for one in seen)
        print(f"    with {', '.join(CHECKPOINT)}, whose config is of its day, counted as wrong: {own:.1f} %")
    for (engine, images), most in KINDS.items():
        seen = [
            one for one in scored if one.row.engine == engine and (images is None or one.images == images)
        ]
        kind = ENGINES[engine] + {None: "", True: ", multimodal", False: ", text"}[images]
        tokens = sorted(errors(seen, "kv_tokens"))
        line(f"KV tokens, median, {kind} ({len(tokens)})", f"<= {most:.0f} %", f"{median(tokens):.2f} %",
             median(tokens) <= most)  # fmt: skip
        as_written(judged, seen)
        over = [abs(found) for one in seen if (found := one.overhead()) is not None]
        nearly = tokens[min(len(tokens) - 1, int(0.95 * len(tokens)))]
        print(
            f"    95 % of tokens within {nearly:.1f} %; overhead, median {median(over):.2f} GiB ({len(over)})"
        )


def as_written(judged: list[Judged], seen: list[Judged]) -> None:
    """The same median without what was corrected or left out by hand, where a class has such rows."""
    kinds = {(one.row.engine, one.images) for one in seen}
    apart = [one for one in judged if one.row.id in OTHERS and (one.row.engine, one.images) in kinds]
    changed = [one for one in seen if one.row.id in SEEN]
    rest = [one for one in seen if one.row.id not in SEEN]
    listed = [*(judge(written(one.row)) for one in changed), *apart]
    if listed:
        names = ", ".join(one.row.id for one in listed)
        print(f"    with {names} as written: {median(errors([*rest, *listed], 'kv_tokens')):.2f} %")


def training() -> None:
    """What training takes, beside peft's own measurements."""
    print("training, peft's table (asked: at most 5 % above, never below)")
    for name, (how, measured) in PEFT.items():
        told = need(load("llama-3.2-3b"), batch=4, sequence=768, **how).total / GIB
        line(name, "<= 5.0 %", f"{100 * (told / measured - 1):+.2f} %", 1 <= told / measured <= 1.05)


def line(name: str, asked: str, got: str, reached: bool) -> None:
    """One row of the table."""
    print(f"  {name:42} asked {asked:9} measured {got:9} {'reached' if reached else 'MISSED'}")


def each(judged: list[Judged]) -> None:
    """Every start with its errors."""
    for one in judged:
        if one.plan is None:
            print(f"  ??  {one.row.id:9} {one.row.model:45} {one.why[:80]}")
            continue
        shown = " ".join(
            f"{figure} {error:+.1f}%"
            for figure in ("weights", "activation", "kv_cache", "kv_tokens")
            if (error := one.error(figure)) is not None
        )
        mark = "ok" if one.right else "XX"
        print(f"  {mark}  {one.row.id:9} {one.row.model:45} {one.row.outcome}/{one.plan.outcome} {shown}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--copy", action="store_true")
    chosen = parser.parse_args()
    if chosen.copy:
        copy()
    for name, report in (("h100", h100), ("logs", logs)):
        judged = [judge(row) for row in rows(name)]
        report(judged)
        if chosen.all:
            each(judged)
    training()


if __name__ == "__main__":
    main()
