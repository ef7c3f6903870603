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
    from collections.abc import Iterable, Iterator

ENGINES = {"vllm": on_gpu, "vllm-ascend": on_npu}
SHARE = 0.9
FEWEST = 6
"""Starts that tell a class; below, its bars stay as a wider class's or a person's."""
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


def width(values: Iterable[float], least: float) -> list[float]:
    """Below and above: the narrowest range that holds nine of ten, wider the fewer starts tell it."""
    found = sorted(values)
    size = min(len(found), math.ceil(SHARE * len(found) + 0.5))
    ranges = [(found[i], found[i + size - 1]) for i in range(len(found) - size + 1)]
    low, high = min(ranges, key=lambda one: one[1] - one[0])
    more = 1 + 2 / len(found)
    return [round(max(high, least) * more, 3), round(max(-low, least) * more, 3)]


def inside(seen: list[Miss]) -> float:
    """The share of starts that lie within the bars of the others."""
    held = 0
    for number, one in enumerate(seen):
        rest = [*seen[:number], *seen[number + 1 :]] or seen
        low, high = width((miss.kv_gib for miss in rest), FLOOR["kv_gib"])
        held += -high <= one.kv_gib <= low
    return held / len(seen)


def classes() -> Iterator[tuple[str, str, int, dict[str, list[float]]]]:
    """Each class with its bars; printed on the way."""
    print(f"{'class':64} starts  below  above   of usable  left out inside")
    for (engine, table, number), seen in sorted(misses().items()):
        row = ENGINES[engine].facts.tables[table][number]
        named = {k: v for k, v in row.items() if k in ("since", "before", "cards")}
        bars = {name: width((getattr(miss, name) for miss in seen), least) for name, least in FLOOR.items()}
        half = median(sum(bars["kv_gib"]) / 2 / miss.usable for miss in seen)
        text = f"{engine} {'multimodal' if table == 'error_towers' else 'text'} {named}"
        low, high = bars["kv_gib"]
        print(f"{text:64} {len(seen):6} {low:6.2f} {high:6.2f} {half:10.1%} {inside(seen):16.0%}")
        if len(seen) >= FEWEST:
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
