"""What came out, for people: report.md with its picture, a model card, and report.json beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MIB = 2**20
WIDTH, BAR = 640, 18


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Every report into the folder that was made."""
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(page(found) + "\n![size and loss](report.svg)\n", encoding="utf-8")
    (folder / "report.svg").write_text(picture(_bars(found)), encoding="utf-8")
    (folder / "README.md").write_text(card(found), encoding="utf-8")


def page(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    before, after, gate = found["before"], found["after"], found["gate"]
    rows = [
        ("MiB of weights", *(f"{one['bytes'] / MIB:.1f}" for one in (before, after)), f"{found['ratio']} x"),
        ("perplexity", f"{before['perplexity']:.3f}", f"{after['perplexity']:.3f}", f"{found['loss']:+.2%}"),
        ("tokens/s, one request", before["tokens_per_s"], after["tokens_per_s"], f"{found['speedup']:.2f} x"),
        ("peak memory, MiB", *(f"{one['peak_memory_bytes'] / MIB:.0f}" for one in (before, after)), ""),
        ("load, s", before["load_seconds"], after["load_seconds"], ""),
        ("greedy agreement", "", f"{found['greedy_agreement']:.1%}", "of the original's next tokens"),
        ("KL", "", f"{found['kl']:.5f}", "nats a token"),
    ]  # fmt: skip
    if "eval" in before:
        rows.append(("own task", f"{before['eval']:.1%}", f"{after['eval']:.1%}", "right answers"))
    text, passed = found["text"], "passed" if gate["passed"] else f"refused: {gate['reason']}"
    return "\n".join((
        f"# {found['model']}: {' + '.join(found['methods'])}", "",
        f"Grade: **{found['grade']}**. Gate: {passed}.", "",
        *table(("", "before", "after", ""), rows), "",
        f"Judged on {text['file']} ({text['windows']} windows of {text['window']} tokens, sha256"
        f" {text['sha256'][:12]});"
        f" calibrated on {text['calibration_samples']} samples of {text['calibration_file']}.", "",
        *table(("step", "seconds", "CPU seconds"),
               [(one["name"], one["seconds"], one["cpu_seconds"]) for one in found["steps"]]), "",
        *(f"* {line}" for line in found["advice"]), "",
        "Libraries: " + ", ".join(f"{name} {release}" for name, release in found["libraries"].items()) + ".",
    ))  # fmt: skip


def card(found: Mapping[str, Any]) -> str:
    """README.md of the checkpoint: where it comes from, and how to make it again."""
    words = " ".join(f"--to {one}" for one in found["methods"])
    return "\n".join((
        "---", f"base_model: {json.dumps(found['model'])}", "tags: [memserve, compressed]", "---", "",
        page(found), "", "## Made by", "",
        f"`memserve compress {found['model']} {words}`, with the libraries above, on texts with the sha256"
        f" {found['text']['calibration_sha256']} (calibration) and {found['text']['sha256']} (judged).", "",
    ))  # fmt: skip


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]


def _bars(found: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    before, after = found["before"], found["after"]
    most = max(before["bytes"], after["bytes"])
    lost = max(before["perplexity"], after["perplexity"])
    return [
        *((f"size {name}", one["bytes"] / most, f"{one['bytes'] / MIB:.1f} MiB")
          for name, one in (("before", before), ("after", after))),
        *((f"perplexity {name}", one["perplexity"] / lost, f"{one['perplexity']:.2f}")
          for name, one in (("before", before), ("after", after))),
    ]  # fmt: skip


def picture(bars: Sequence[tuple[str, float, str]]) -> str:
    """Bars with their words, each a share of the widest."""
    lines = [
        f'<g transform="translate(0 {at * (BAR + 6)})"><text x="150" y="13" text-anchor="end">{name}</text>'
        f'<rect x="158" width="{max(0.0, share) * (WIDTH - 260):.1f}" height="{BAR}" fill="#4477aa"/>'
        f'<text x="{166 + max(0.0, share) * (WIDTH - 260):.1f}" y="13">{said}</text></g>'
        for at, (name, share, said) in enumerate(bars)
    ]
    height = len(bars) * (BAR + 6)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
    return f'{head} font-family="sans-serif" font-size="12">{"".join(lines)}</svg>\n'
