"""Whether a result is good enough: its loss, a grade by the table, the gate, and advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memserve.engines.making import Method

GRADES = (("excellent", 0.01, 0.25), ("good", 0.03, 0.15), ("acceptable", 0.1, 0.05))
"""The most loss and the least saving of each; `needs work` is what keeps to none."""
BROKEN = 1.0
"""The rise of perplexity that is refused where nobody says how much is too much: twice as much."""


@dataclass(frozen=True)
class Gate:
    """What a result must keep to."""

    max_loss: float = BROKEN
    min_speedup: float | None = None
    memory: int | None = None
    """Bytes that the weights may take."""

    def refuses(self, found: Mapping[str, Any]) -> str:
        """Why; empty if the result passes."""
        if not found["loss"] <= self.max_loss:
            return f"perplexity rises by {found['loss']:.1%}, {self.max_loss:.1%} are allowed"
        if self.min_speedup and found["speedup"] < self.min_speedup:
            return f"{found['speedup']:.2f} times as fast here, {self.min_speedup:g} times are asked for"
        if self.memory and found["after"]["bytes"] > self.memory:
            return f"the weights take {found['after']['bytes']:,} bytes, {self.memory:,} are allowed"
        return ""


def judge(before: Mapping[str, Any], after: Mapping[str, Any], gate: Gate) -> dict[str, Any]:
    """Ratio, saving, loss, agreement, grade."""
    found = {
        "ratio": round(before["bytes"] / after["bytes"], 4),
        "saving": round(1 - after["bytes"] / before["bytes"], 4),
        "loss": round(after["perplexity"] / before["perplexity"] - 1, 6),
        "speedup": round(after["tokens_per_s"] / before["tokens_per_s"], 4),
        "greedy_agreement": round(after["greedy_agreement"], 4), "kl": round(after["kl"], 6), "after": after,
    }  # fmt: skip
    reason = gate.refuses(found)
    del found["after"]
    return {**found, "grade": grade(found), "gate": {"max_loss": gate.max_loss, "passed": not reason,
            "min_speedup": gate.min_speedup, "memory": gate.memory, "reason": reason}}  # fmt: skip


def grade(found: Mapping[str, Any]) -> str:
    """The first row of the table whose loss and saving are kept."""
    for name, loss, saving in GRADES:
        if found["loss"] <= loss and found["saving"] >= saving:
            return name
    return "needs work"


def advice(found: Mapping[str, Any], methods: Sequence[Method]) -> list[str]:
    """What to do next, and what to look at before the result is used."""
    said = [f"{one.name}: {one.row['risk']}" for one in methods]
    if found["grade"] == "needs work" and found["loss"] > 0.1:
        said.append("the loss is large: try 8 bits, fewer pruned layers, or train what was lost back"
                    " (docs/compress.md, distillation)")  # fmt: skip
    elif found["saving"] < 0.25:
        said.append("little is saved: most of a small model is its embeddings, which stay in 16 bits")
    if found["speedup"] < 1:
        said.append("slower than the original in transformers on this machine: measure the engine that will"
                    " serve it (memserve bench)")  # fmt: skip
    said.append("the original was not touched: naming it again is the way back")
    return said
