"""How far `memserve.speed.predict` is from published measurements: prints the table that issue 5 asks for.

    python benchmarks/speed.py             needs truth/throughput.jsonl (see speed_rows.py)
    python benchmarks/speed.py --by group  also by source, engine, card or model
    python benchmarks/speed.py --sample tests/data/speed_rows.jsonl    copies every fifth row for the tests

What is left out of the calibration in turn is computed by `python benchmarks/fit_speed.py --check`, which
writes benchmarks/speed_left_out.json; this script prints it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import speed_rows

from memserve.speed.roofline import forecast, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from speed_rows import Row

    from memserve.speed.result import Range

LEFT_OUT = Path(__file__).with_name("speed_left_out.json")
ASKED = {"card": "<= 15 %", "model": "<= 16 %", "source": "<= 18 %"}
IDEAL = layout.Constants(
    weights=1, cache=1, gemm=1, prefill=1, attention=1, experts=1, evenness=1e6, unpack=1, unpack_gemm=1,
    link=1, layer_s=0, expert_s=0, latent_s=0, prompt_s=0, expert_prompt_s=0, reduce_s=0, step_s=0,
    sequence_s=0, overlap=1, first_s=0, queue=0, crowd=1, short=1, tail=1,
)  # fmt: skip
"""Peak bandwidth and arithmetic, nothing else: what a textbook roofline says."""


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which a share of the values lies."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")


def error(row: Row, guess: float) -> float:
    """Relative error against the measurement."""
    return abs(guess / row.value - 1)


def stated(row: Row) -> Range:
    """The range that `predict` states for the row's figure, in the row's unit."""
    speed = forecast.judge(speed_rows.situation(row))
    if row.figure == "throughput":
        return speed.output_tokens_per_s
    found = speed.tpot_ms if row.figure == "tpot" else speed.ttft_ms
    return replace(found, low=found.low / 1e3, likely=found.likely / 1e3, high=found.high / 1e3)


def ideal(row: Row) -> float:
    """The textbook roofline's value."""
    seen = speed_rows.situation(row)
    return speed_rows.predicted(row, seen._replace(setup=seen.setup._replace(constants=IDEAL)))


def covered(rows: Sequence[Row]) -> float:
    """Share of rows whose measurement lies inside the stated range."""
    inside = [(found := stated(row)).low <= row.value <= found.high for row in rows]
    return sum(inside) / max(1, len(inside))


def line(name: str, rows: Sequence[Row], asked: str = "") -> str:
    """One row of the table."""
    errors = [error(row, speed_rows.predicted(row, speed_rows.situation(row))) for row in rows]
    base = [error(row, ideal(row)) for row in rows]
    return (
        f"{name:44} {len(rows):5} {quantile(errors, 0.5):8.1%} {quantile(errors, 0.9):8.1%} "
        f"{covered(rows):8.1%} {quantile(base, 0.5):9.1%}   {asked}"
    )


def report(rows: Sequence[Row]) -> list[str]:
    """The table of the issue."""
    own = [row for row in rows if not row.alike]
    tpot = [row for row in own if row.figure == "tpot"]
    flow = [row for row in own if row.figure == "throughput"]
    most = [row for row in flow if row.concurrency is None]
    first = [row for row in own if row.figure == "ttft"]
    ranged = [*tpot, *flow, *first]
    head = ("published rows whose model has a config", "rows", "median", "90 %", "in range", "roofline")
    return [
        "{:44} {:>5} {:>8} {:>8} {:>8} {:>9}   asked".format(*head),
        line("time per output token", tpot, "median <= 15 %, 90 % <= 50 %"),
        line("maximum throughput", most, "median <= 22 %"),
        line("throughput, all loads", flow),
        line("time to first token", first),
        f"{'inside the stated range, all figures':44} {len(ranged):5} {covered(ranged):26.1%}   80 to 95 %",
    ]


def left_out() -> list[str]:
    """What the last `fit_speed.py --check` found."""
    if not LEFT_OUT.exists():
        return ["left out of the calibration: run python benchmarks/fit_speed.py --check"]
    found = json.loads(LEFT_OUT.read_text(encoding="utf-8"))
    engines = (
        f"left out by {name:13} decoding on {engine}: {row['median']:.1%} ({row['rows']} rows)"
        for name, rows in found["labels"].items() if name in ("source", "configuration")
        for engine, row in rows["decode"].items()
    )  # fmt: skip
    labels = (
        f"left out by {name:13} time per token {row['tpot']['median']:6.1%} {ASKED.get(name, ''):8} "
        f"(90 %: {row['tpot']['p90']:.0%}, {row['tpot']['rows']} rows), "
        f"throughput {row['throughput']['median']:6.1%}; in range {row['inside']:.1%}, 80 to 95 %"
        for name, row in found["labels"].items()
    )
    return [*labels, *engines]


def grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> list[str]:
    """A line for each group and figure."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.figure != "total":
            groups[f"{row.figure:10} {key(row)}"[:44]].append(row)
    return [line(name, found) for name, found in sorted(groups.items())]


KEYS: dict[str, Callable[[Row], str]] = {
    "group": lambda row: row.group,
    "engine": lambda row: speed_rows.situation(row).engine,
    "card": lambda row: speed_rows.situation(row).setup.card.name,
    "model": lambda row: row.model,
}


def sample(rows: Sequence[Row], every: int = 5) -> list[str]:
    """Every fifth row of each source and figure as JSON, figures and source only."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.figure != "total" and not row.alike:
            groups[row.group, row.figure].append(row)
    chosen = [row for found in groups.values() for row in found[::every]]
    return [
        json.dumps({k: v for k, v in asdict(row).items() if k not in {"note", "alike"}}) for row in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", choices=sorted(KEYS), help="also print each group")
    parser.add_argument("--sample", type=Path, help="write a part of the rows to this file")
    options = parser.parse_args()
    rows = speed_rows.rows()
    if options.sample:
        options.sample.write_text("\n".join(sample(rows)) + "\n", encoding="utf-8")
        return
    print("\n".join([*report(rows), *left_out()]))
    if options.by:
        print("\n".join(grouped(rows, KEYS[options.by])))


if __name__ == "__main__":
    main()
