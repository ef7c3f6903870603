"""A run as one self-contained page: progress, tokens, cost, failures, how long answers took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from memserve.run.observers import Tally

BEGIN = "<!doctype html><!-- memserve run -->"
"""How every such page begins; one that does not is nobody's to overwrite."""
_WIDE, _HIGH = 640, 160
_STYLE = """
:root{color-scheme:light dark;--a:#2563eb;--b:#b91c1c;--line:#8884}
body{font:15px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}
td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid var(--line)}
td+td{font-variant-numeric:tabular-nums}progress{width:100%}svg{width:100%;height:auto;background:var(--line)}
rect{fill:var(--a)}polyline{fill:none;stroke:var(--a);stroke-width:2}text{fill:currentColor;font-size:11px}
"""


def is_ours(path: Path) -> bool:
    """Whether a file is empty or begins as a page does."""
    with path.open("rb") as file:
        return BEGIN.encode().startswith(file.read(len(BEGIN)))


def html(tally: Tally, title: str) -> str:
    """The page; while the run goes on it asks the browser to read it again."""
    again = "" if tally.over else '<meta http-equiv="refresh" content="15">'
    counts, state = tally.counts, "ended" if tally.over else "running"
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(tally.began))
    of = f' value="{counts.settled}" max="{tally.total}"' if tally.total else ""
    bar = f"<progress{of} aria-label='settled'></progress>" if of or not tally.over else ""
    return (
        f'{BEGIN}<html lang="en"><meta charset="utf-8">{again}<title>{escape(title)}: {state}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p>{state}; began {began}</p>{bar}"
        f"{_table(_facts(tally))}<h2>Answers over time</h2>{_line(tally.marks)}"
        f"<h2>Seconds an answer took</h2>{_bars(tally)}"
        f"<h2>How answers ended</h2>{_table(tally.finished)}<h2>Failures</h2>{_table(tally.errors)}"
    )


def _facts(tally: Tally) -> Mapping[str, object]:
    counts = tally.counts
    of = "" if tally.total is None else f" of {tally.total}"
    half, most = tally.quantile(0.5), tally.quantile(0.99)
    rows = {
        "requests settled": f"{counts.settled}{of}", "answered by this run": counts.done,
        "from the cache": counts.cached, "answered before": counts.resumed, "repeated": counts.repeated,
        "failed": counts.failed, "prompt tokens": f"{counts.prompt_tokens:,}",
        "of them in the provider's cache": f"{counts.cached_tokens:,}",
        "answer tokens": f"{counts.completion_tokens:,}",
        "answer tokens a second": f"{tally.figures()['tokens_per_s']:.1f}",
        "cost": "unknown" if counts.usd is None else f"{counts.usd:.4f} $",
        "minutes": f"{tally.elapsed / 60:.1f}",
    }  # fmt: skip
    if half is not None:
        rows["half of the answers within"] = f"{half:g} s"
        rows["99 of 100 within"] = f"{most:g} s"
    return rows


def _table(rows: Mapping[str, object]) -> str:
    if not rows:
        return "<p>none</p>"
    cells = (f"<tr><th>{escape(name)}<td>{escape(str(value))}" for name, value in list(rows.items()))
    return f"<table>{''.join(cells)}</table>"


def _line(marks: Sequence[tuple[float, int, int]]) -> str:
    longest, most = max(marks[-1][0], 1e-9), max(marks[-1][1], 1)
    points = (f"{at / longest * _WIDE:.1f},{_HIGH - done / most * _HIGH:.1f}" for at, done, _ in marks)
    steps = [(end[0] - begin[0], end[1] - begin[1]) for begin, end in pairwise(marks)]
    paces = [answers / seconds for seconds, answers in steps if seconds > 0]
    slow, fast = min(paces, default=0.0), max(paces, default=0.0)
    told = f"{most} answers in {longest:.0f} s, {slow:.2f} to {fast:.2f} a second"
    return _drawing(f'<polyline points="{" ".join(points)}"/>', told)


def _bars(tally: Tally) -> str:
    from memserve.run.observers import EDGES

    names = [*(f"{edge:g}" for edge in EDGES), "more"]
    full = [index for index, count in enumerate(tally.histogram) if count]
    if not full:
        return "<p>none yet</p>"
    shown = range(full[0], full[-1] + 1)
    most, wide = max(tally.histogram), _WIDE / len(shown)
    parts: Iterable[str] = (
        f'<rect x="{at * wide + 1:.1f}" y="{_HIGH - tall:.1f}" width="{wide - 2:.1f}" height="{tall:.1f}"/>'
        f'<text x="{at * wide + 3:.1f}" y="{_HIGH - 4}">{names[index]}</text>'
        for at, index in enumerate(shown)
        for tall in [tally.histogram[index] / most * (_HIGH - 4)]
    )
    told = ", ".join(f"{tally.histogram[index]} within {names[index]} s" for index in shown)
    return _drawing("".join(parts), told)


def _drawing(inner: str, told: str) -> str:
    box = f'viewBox="0 0 {_WIDE} {_HIGH}" role="img"'
    return f"<svg {box}><title>{escape(told)}</title>{inner}</svg><p>{escape(told)}</p>"
