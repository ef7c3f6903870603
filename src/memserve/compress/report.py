"""Whether a result is good enough, and how that is told: grade, gate, report.json, report.md, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve.engines.making import Method

MIB = 2**20
GRADES = (("excellent", 0.01, 0.25), ("good", 0.03, 0.15), ("acceptable", 0.1, 0.05))
"""The most loss and the least saving of each; what keeps to none `needs work`."""
BROKEN = 1.0
"""The rise of perplexity that is refused where nobody says how much is too much: twice as much."""


@dataclass(frozen=True)
class Gate:
    """What a result must keep to."""

    max_loss: float = BROKEN
    min_speedup: float | None = None
    memory: int | None = None
    """Bytes that the weights may take."""

    def refuses(self, size: float, loss: float | None, speedup: float | None) -> str:
        """Why; empty where what is known passes."""
        if self.memory is not None and size > self.memory:
            return f"the weights take {size / MIB:,.1f} MiB, {self.memory / MIB:,.1f} are allowed"
        if loss is not None and not loss <= self.max_loss:
            return f"the loss is {loss:.1%}, {self.max_loss:.1%} is allowed"
        if self.min_speedup and speedup is not None and speedup < self.min_speedup:
            return f"{speedup:.2f} times as fast, {self.min_speedup:g} times are asked for"
        return ""

    def judges(self, size: float, loss: float, speedup: float) -> dict[str, Any]:
        """What a report says of it."""
        reason = self.refuses(size, loss, speedup)
        return {"max_loss": self.max_loss, "passed": not reason, "reason": reason}


def judge(before: Mapping[str, Any], after: Mapping[str, Any], gate: Gate,
          methods: Sequence[Method]) -> dict[str, Any]:  # fmt: skip
    """Ratio, saving, loss, agreement, grade, gate and advice."""
    loss = after["perplexity"] / before["perplexity"] - 1
    speedup, saving = after["tokens_per_s"] / before["tokens_per_s"], 1 - after["bytes"] / before["bytes"]
    grade = next((name for name, most, least in GRADES if loss <= most and saving >= least), "needs work")
    advice = [f"{one.name}: {one.row['risk']}" for one in methods]
    if loss > GRADES[-1][1]:
        advice.append("the loss is large: try 8 bits, fewer pruned layers, or train it back (distillation)")
    if saving < GRADES[0][2]:
        advice.append("little is saved: most of a small model is its embeddings, which stay in 16 bits")
    if speedup < 1:
        advice.append("slower than the original here: measure the engine that will serve it (memserve bench)")
    return {
        "ratio": round(before["bytes"] / after["bytes"], 4), "saving": round(saving, 4),
        "loss": round(loss, 6), "speedup": round(speedup, 4),
        "greedy_agreement": round(after["greedy_agreement"], 4), "kl": round(after["kl"], 6), "grade": grade,
        "gate": gate.judges(after["bytes"], loss, speedup),
        "advice": [*advice, "the original was not touched: naming it again is the way back"],
    }  # fmt: skip


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Every report into the folder that was made."""
    head = f"---\nbase_model: {json.dumps(found['model'])}\ntags: [memserve, compressed]\n---\n"
    text = page(found) + "\n\n![size, perplexity, layers](report.svg)\n"
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "report.svg").write_text(picture(_bars(found)), encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(head + text, encoding="utf-8")


def page(found: Mapping[str, Any]) -> str:
    """The report in Markdown; also the model card: what was done, with what, on which text."""
    both, gate, text = (found["before"], found["after"]), found["gate"], found["text"]
    rows = [
        ("weights, MiB", *(f"{one['bytes'] / MIB:.1f}" for one in both), f"{found['ratio']} x"),
        ("perplexity", *(f"{one['perplexity']:.3f}" for one in both), f"{found['loss']:+.2%}"),
        ("tokens/s, one request", *(one["tokens_per_s"] for one in both), f"{found['speedup']} x"),
        ("peak memory, MiB", *(f"{one['peak_memory_bytes'] / MIB:.0f}" for one in both), ""),
        ("load, s", *(one["load_seconds"] for one in both), ""),
        ("same greedy tokens", "", f"{found['greedy_agreement']:.1%}", ""),
        ("KL, nats a token", "", found["kl"], ""),
        *([("own task", *(f"{one['eval']:.1%}" for one in both), "")] if "eval" in both[0] else ()),
    ]
    steps = [(one["name"], one["seconds"], one["cpu_seconds"]) for one in found["steps"]]
    words = " ".join(f"--to {one}" for one in found["methods"])
    return "\n".join((
        f"# {found['model']}: {' + '.join(found['methods'])}", "",
        f"Grade: **{found['grade']}**. Gate: {gate['reason'] or 'passed'}.", "",
        *table(("", "before", "after", ""), rows), "",
        f"Text: {text['file']}, sha256 {text['sha256']}; judged on {text['windows']} windows of"
        f" {text['window']} tokens, {text['calibration_samples']} samples of others calibrated.", "",
        *table(("step", "seconds", "CPU seconds"), steps), "", *(f"* {line}" for line in found["advice"]), "",
        f"Made by `memserve compress {found['model']} {words}` with "
        + ", ".join(f"{name} {release}" for name, release in found["libraries"].items()) + ".",
    ))  # fmt: skip


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]


def _bars(found: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Size and perplexity before and after; where layers were weighed, what each of them does."""
    bars = []
    for field, unit in (("bytes", MIB), ("perplexity", 1)):
        sizes = {name: found[name][field] for name in ("before", "after")}
        bars += [(f"{'MiB' if unit > 1 else field} {name}", one / max(sizes.values()), f"{one / unit:.2f}")
                 for name, one in sizes.items()]  # fmt: skip
    moved: list[float] = next((step["influence"] for step in found["steps"] if "influence" in step), [])
    return bars + [(f"layer {at}", one / max(moved), f"{one:.3f}") for at, one in enumerate(moved)]


def picture(bars: Sequence[tuple[str, float, str]]) -> str:
    """Bars with their words, each a share of the widest."""
    lines = [
        f'<text x="130" y="{at * 22 + 13}" text-anchor="end">{name}</text><rect x="138" y="{at * 22}"'
        f' width="{400 * share:.1f}" height="16" fill="#47a"/>'
        f'<text x="{144 + 400 * share:.1f}" y="{at * 22 + 13}">{said}</text>'
        for at, (name, share, said) in enumerate(bars)
    ]
    size = f'width="620" height="{22 * len(bars)}" font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(lines)}</svg>\n'
