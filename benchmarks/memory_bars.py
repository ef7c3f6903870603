"""Error bars by class: how far real starts lie from the figures, each start against bars made without it.

python benchmarks/memory_bars.py           the classes, with how many starts lie inside
python benchmarks/memory_bars.py --write   and write the bars into each backend's memory.json
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from memory_rows import ROOT, rows

from memory import judge
from memserve.hardware import parse
from memserve.hardware.machine import GIB
from memserve_ascend.memory import accountant as on_npu
from memserve_vllm.memory import accountant as on_gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ENGINES = {"vllm": on_gpu, "vllm-ascend": on_npu}
SHARE, OF_PARENT = 0.9, 0.95
"""Of a class's own starts; of its parent's, which say less of it."""
FEWEST = 10
"""Starts that tell a class; below, its bars are its parent's: its releases with and without pictures, then
all releases, then the engine."""
MOST_INSIDE, MOST_WIDE = 0.95, 0.04
"""Bars that hold every start say little, and so do bars wider than this share of the usable memory."""
MARGINS = tuple(1 + step / 20 for step in range(61))
FLOOR = {"kv_gib": 0.1, "weights": 0.001}
"""Least width: what a log rounds away, and one segment of the allocator."""


class Miss(NamedTuple):
    """What was told above what was measured."""

    kv_gib: float
    weights: float
    """As a share of the weights."""
    usable: float


def misses() -> dict[tuple[str, str, int], list[Miss]]:
    """The starts that ran, by engine, table and row."""
    found: dict[tuple[str, str, int], list[Miss]] = defaultdict(list)
    for row in (*rows("h100"), *rows("logs")):
        plan = judge(row).plan
        if row.engine not in ENGINES or not row.scored or row.outcome != "runs" or not row.kv_cache:
            continue
        if plan is None or plan.footprint is None:
            continue
        facts, foot = ENGINES[row.engine].facts, plan.footprint
        table = "error_towers" if plan.model.towers else "error"
        wanted = facts.row(table, row.version, parse(row.gpus).card)
        number = next(i for i, one in enumerate(facts.tables[table]) if one is wanted)
        weights = foot.weights / GIB / row.weights - 1 if row.weights else 0.0
        miss = Miss(foot.kv_cache / GIB - row.kv_cache, weights, foot.usable / GIB)
        found[row.engine, table, number].append(miss)
    return found


def width(values: Iterable[float], least: float, share: float, margin: float) -> list[float]:
    """Below and above: the narrowest range that holds nine of ten, so many times wider."""
    found = sorted(values)
    size = min(len(found), math.ceil(share * len(found)))
    ranges = [(found[i], found[i + size - 1]) for i in range(len(found) - size + 1)]
    low, high = min(ranges, key=lambda one: one[1] - one[0])
    return [round(max(high, least) * margin, 3), round(max(-low, least) * margin, 3)]


def margin(values: list[float], least: float, share: float, most: float) -> float:
    """The one with which most nearly nine of ten lie within bars that were made without them."""
    narrow = [one for one in MARGINS if sum(width(values, least, share, one)) / 2 <= most] or [1.0]
    shares = {one: inside(values, least, share, one) for one in narrow}
    useful = {one: held for one, held in shares.items() if held <= MOST_INSIDE} or shares
    return min(useful, key=lambda one: (round(abs(useful[one] - SHARE), 6), one))


def wider(bars: list[float], own: list[float]) -> list[float]:
    """A parent's bars, but as wide as the class's few starts show."""
    if len(own) >= FEWEST:
        return bars
    return [round(max(bars[0], *own), 3), round(max(bars[1], *(-miss for miss in own)), 3)]


def inside(values: list[float], least: float, share: float, wide: float) -> float:
    """The share of starts that lie within the bars of the others."""
    held = 0
    for number, one in enumerate(values):
        rest = [*values[:number], *values[number + 1 :]] or values
        low, high = width(rest, least, share, wide)
        held += -high <= one <= low
    return held / len(values)


def told(found: dict[tuple[str, str, int], list[Miss]], engine: str, table: str, number: int) -> list[Miss]:
    """The starts that tell a class's bars: its own, or its parent's where they are few."""
    own, tables = found[engine, table, number], ENGINES[engine].facts.tables
    wanted = _of(tables[table][number])
    same = [
        m for key in found if key[0] == engine and _of(tables[key[1]][key[2]]) == wanted for m in found[key]
    ]
    kind = [miss for key in found if key[:2] == (engine, table) for miss in found[key]]
    every = [miss for key in found if key[0] == engine for miss in found[key]]
    return next((seen for seen in (own, same, kind) if len(seen) >= FEWEST), every)


def _of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's class is told by."""
    return {name: value for name, value in row.items() if name in ("since", "before", "cards")}


def classes() -> Iterator[tuple[str, str, int, dict[str, list[float]]]]:
    """Each class with its bars; printed on the way."""
    print(f"{'class':64} starts  told by  below  above   of usable  left out inside")
    found = misses()
    for (engine, table, number), seen in sorted(found.items()):
        row = ENGINES[engine].facts.tables[table][number]
        by = told(found, engine, table, number)
        of = SHARE if by is seen else OF_PARENT
        bars, left_out = {}, {}
        most = {"kv_gib": MOST_WIDE * median(miss.usable for miss in seen), "weights": MOST_WIDE}
        for name, least in FLOOR.items():
            values = [getattr(miss, name) for miss in by]
            wide = margin(values, least, of, most[name])
            left_out[name] = inside(values, least, of, wide)
            bars[name] = wider(width(values, least, of, wide), [getattr(miss, name) for miss in seen])
        half = median(sum(bars["kv_gib"]) / 2 / miss.usable for miss in seen)
        text = f"{engine} {'multimodal' if table == 'error_towers' else 'text'} {_of(row)}"
        low, high = bars["kv_gib"]
        share = f"{half:10.1%} {left_out['kv_gib']:16.0%}"
        print(f"{text:64} {len(seen):6} {len(by):8} {low:6.2f} {high:6.2f} {share}")
        yield engine, table, number, bars


def write(engine: str, table: str, number: int, bars: dict[str, list[float]]) -> None:
    """Put a class's bars into its row."""
    path = Path(ROOT / "backends" / ENGINES[engine].__module__.split(".")[0] / "memory.json")
    tables: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    tables[table][number].update(bars)
    path.write_text(json.dumps(tables, ensure_ascii=False), encoding="utf-8")


def main() -> None:
    """Print the classes; `tools/data.py --write` gives the files their form again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    for found in list(classes()):
        if chosen.write:
            write(*found)


if __name__ == "__main__":
    main()
