"""Fits the speed model's constants, the engines' speed.json, on published measurements. Needs numpy, scipy.

    python benchmarks/fit_speed.py            fit, then write the constants and the ranges
    python benchmarks/fit_speed.py --check    also leave out cards, models and sources in turn (minutes)
    python benchmarks/fit_speed.py --quick    print what models and cards left out give, and write nothing

Every constant has a prior (what a profile of such an engine shows) and a width in log space; rows pull it
away from there only as far as they agree. Errors count by a robust loss, so that mislabelled rows and
speculative decoding do not bend the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_arrays
import speed_rows
from speed_search import SERVERS, fit, mean

from memserve import registry
from memserve.speed.roofline import forecast, layout, queueing
from memserve.speed.roofline.layout import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from speed_arrays import Record
    from speed_rows import Row
    from speed_search import Key, Values

SHARED = Path(__file__).parents[1] / "src" / "memserve" / "speed" / "data" / "constants.json"
PUBLISHED = SHARED.with_name("published.json")
LEFT_OUT = Path(__file__).with_name("speed_left_out.json")
DATE = "2026-11-30"

SHARED_PRIORS = {
    "weights": (0.9, 0.03, (0.6, 0.95)),
    "cache": (0.75, 0.2, (0.3, 0.92)),
    "gemm": (0.55, 0.25, (0.2, 0.9)),
    "prefill": (0.6, 0.25, (0.2, 0.85)),
    "attention": (0.4, 0.4, (0.1, 0.8)),
    "experts": (0.4, 0.5, (0.1, 1.0)),
    "evenness": (1.0, 0.5),
    "unpack": (0.85, 0.15, (0.5, 1.0)),
    "unpack_gemm": (0.75, 0.2, (0.3, 1.0)),
    "link": (0.6, 0.4, (0.2, 0.95)),
}
ENGINE_PRIORS = {
    "layer_s": (35e-6, 0.15, (15e-6, 1e-4)),
    "expert_s": (20e-6, 0.2),
    "latent_s": (25e-6, 0.2),
    "prompt_s": (60e-6, 0.125),
    "expert_prompt_s": (100e-6, 0.15),
    "reduce_s": (8e-6, 0.2),
    "step_s": (0.4e-3, 0.2),
    "sequence_s": (6e-6, 0.2),
    "quantized_layer_s": (4e-6, 0.2),
    "overlap": (0.2, 0.2, (1e-3, 1.0)),
}
"""Narrow: most of them are told apart by one or two models only, so a wide prior learns those by heart."""
OTHER_PRIORS: dict[str, dict[str, tuple[Any, ...]]] = {
    "fused": {
        "weights": (0.85, 0.1, (0.6, 0.95)), "unpack": (0.95, 0.05, (0.5, 1.0)), "layer_s": (35e-6, 0.4),
        "reduce_s": (60e-6, 0.6), "sequence_s": (60e-6, 0.7),
    },
    "llamacpp": {
        "weights": (0.85, 0.1), "layer_s": (40e-6, 0.5), "reduce_s": (100e-6, 0.7),
        "unpack": (0.95, 0.1, (0.5, 1.0)),
    },
    "hf": {
        "weights": (0.8, 0.1), "layer_s": (0.6e-3, 0.3), "quantized_layer_s": (0.6e-3, 0.6),
        "expert_s": (3e-3, 1.0), "sequence_s": (50e-6, 0.7), "prefill": (0.4, 0.3), "cache": (0.1, 0.7),
    },
}  # fmt: skip
NPU_PRIORS: dict[str, dict[str, tuple[Any, ...]]] = {
    "mindie": {
        "cache": (0.6, 0.3, (0.05, 0.95)), "gemm": (0.4, 0.4, (0.05, 0.95)),
        "prefill": (0.4, 0.4, (0.05, 0.95)),
        "quantized_layer_s": (0.3e-3, 0.7), "sequence_s": (50e-6, 0.7), "prompt_s": (0.5e-3, 0.3),
        "first_s": (0.03, 0.5), "first_layer_s": (0.5e-3, 0.5),
    },
    "ascend": {
        "cache": (0.6, 0.3, (0.05, 0.95)), "gemm": (0.4, 0.4, (0.05, 0.95)),
        "prefill": (0.4, 0.4, (0.05, 0.95)),
        "unpack": (0.5, 0.5, (0.05, 1.0)), "expert_s": (0.3e-3, 0.7), "latent_s": (0.1e-3, 0.7),
        "quantized_layer_s": (0.3e-3, 0.7), "sequence_s": (50e-6, 0.7), "prompt_s": (0.5e-3, 0.5),
        "expert_prompt_s": (0.3e-3, 0.5), "first_s": (0.03, 0.5), "queue": (0.05, 0.3),
        "first_layer_s": (0.5e-3, 0.5), "first_expert_s": (1e-3, 0.7), "first_latent_s": (1e-3, 0.7),
    },
    "generation eager": {"layer_s": (20.0, 0.5), "sequence_s": (2.0, 0.7), "step_s": (3.0, 0.7)},
}  # fmt: skip
"""What of Ascend is not set by hand: bandwidth, launches, HCCL's waits and steps of a dense model are."""
BURST_PRIORS = {"short": (4.0, 0.5), "crowd": (1.2, 0.3), "tail": (6.0, 0.5)}
"""What only tests show that send everything at once; such rows calibrate nothing else."""
FIRST_PRIORS = {
    "first_s": (0.02, 0.4), "queue": (0.05, 0.2), "polls": (2.0, 0.5), "reads": (0.9, 0.2),
    "first_layer_s": (0.2e-3, 0.7), "first_expert_s": (0.5e-3, 0.7), "first_latent_s": (1e-3, 0.7),
}  # fmt: skip
FIRST_OWN = {
    ("sglang", "polls"): (5.0, 0.7),
    ("generation trtllm 0", "first_s"): (0.1, 0.7),
    ("generation trtllm 1.0", "first_s"): (2.5, 0.5),
    ("generation trtllm 1.1", "first_s"): (1.0, 0.3),
    ("generation trtllm 1.1", "first_latent_s"): (1.3, 0.4),
}
"""SGLang's published tests look for new requests every 10 or 30 steps."""
HOST_PRIORS = {
    "layer_s": (0.05, 0.7),
    "quantized_layer_s": (0.05, 0.7),
    "weights": (1.0, 0.3, (0.5, 1.0)),
    "cache": (10.0, 0.5),
}
CARD_PRIORS = dict.fromkeys(("weights", "gemm", "prefill", "layer_s"), (1.0, 0.12, (0.6, 1.6)))

WIDER = 1.5
"""How much wider, in log space, a range is where an engine was never timed on such a card."""

ELSEWHERE = {"ttft": 1.14}
"""The same for a new source's times to first token: tests differ in when and where that token counts."""

SOURCE = "benchmarks/fit_speed.py on published rows (docs/speed.md)"


def calibrate(
    rows: Record, rounds: int = 18, near: Values | None = None, whole: Record | None = None
) -> Values:
    """All constants: the servers together, each other class, and what only first tokens show.

    `near` are values to begin at; a class that has all its rows of `whole` keeps them as they are.
    """
    near = near or {}
    rows = rows.part([speed_rows.unfit(row) is None for row in rows.row])
    same = _untouched(rows, whole)
    kept = {"card pascal", *_scopes(same)}
    by_hand = [(scope, name) for scope, name in near if scope in NPU_PRIORS and name not in NPU_PRIORS[scope]]
    values = {key: value for key, value in near.items() if key[0] in kept or key in by_hand}
    if "vllm" not in same:
        values |= _servers(rows.part(np.isin(rows.engine, SERVERS)), rounds, near)
    ipex = np.array([row.backend == "ipex" for row in rows.row])
    for engine, priors in OTHER_PRIORS.items():
        chosen = (rows.engine == engine) & (rows.figure != "ttft") & ~ipex
        if engine not in same:
            values = _class(rows.part(chosen), {engine: priors}, values, rounds, near)
    if "hf" not in same:
        values = _class(rows.part(ipex), {"card cpu": HOST_PRIORS}, values, rounds, near)
    if "ascend" not in same:
        values = _class(
            rows.part(np.isin(rows.engine, ("ascend", "mindie"))), NPU_PRIORS, values, rounds, near
        )
    return values


def _untouched(rows: Record, whole: Record | None) -> set[str]:
    """Engines of which nothing is left out; those that are fitted together stay together."""
    if whole is None:
        return set()
    full = Counter(row.id for row in whole.row if speed_rows.unfit(row) is None)
    gone = {row.id for row in whole.row} - {row.id for row in rows.row}
    missing = {e for e, row in zip(whole.engine, whole.row, strict=True) if row.id in gone and row.id in full}
    together = (set(SERVERS), {"ascend", "mindie"})
    missing |= {engine for group in together if group & missing for engine in group}
    return set(map(str, whole.engine)) - set(map(str, missing))


def _scopes(same: set[str]) -> set[str]:
    """The scopes of values that belong to these engines alone."""
    shared = {"default", "card blackwell", "card ampere", "generation vllm 0.11"}
    shared |= {scope for scope, _ in FIRST_OWN} | set(SERVERS)
    own = {"vllm": shared, "hf": {"hf", "card cpu"}, "ascend": set(NPU_PRIORS)}
    return {scope for engine in same for scope in own.get(engine, {engine})} - ({"sglang", "trtllm"} - shared)


def _class(rows: Record, priors: dict[str, dict[str, tuple[Any, ...]]], values: Values, rounds: int,
           near: Values) -> Values:  # fmt: skip
    """Some scopes' own constants; left at the defaults where no row is there."""
    wanted = {(scope, name): prior for scope, known in priors.items() for name, prior in known.items()}
    return fit(rows, wanted, values, rounds, near) if len(rows.value) else values


def _servers(rows: Record, rounds: int, near: Values) -> Values:
    """Time per token and throughput first; then, those held, what only first tokens show."""
    at_once = np.array([speed_rows.burst(row) for row in rows.row])
    first = rows.figure == "ttft"
    priors: dict[Key, tuple[Any, ...]] = {("default", name): prior for name, prior in SHARED_PRIORS.items()}
    for engine in SERVERS:
        priors |= {(engine, name): prior for name, prior in ENGINE_PRIORS.items()}
    for family in ("blackwell", "ampere"):
        priors |= {(f"card {family}", name): prior for name, prior in CARD_PRIORS.items()}
    priors |= {("generation vllm 0.11", name): (3.0, 0.7) for name in ("sequence_s", "step_s")}
    values = fit(rows.part(~first & ~at_once), priors, {}, rounds, near, tuple(ENGINE_PRIORS))
    values |= {("default", name): mean(values, name) for name in ENGINE_PRIORS}
    values = _class(rows.part(~first & at_once), {"default": BURST_PRIORS}, values, rounds, near)
    priors = {(engine, name): prior for engine in SERVERS for name, prior in FIRST_PRIORS.items()}
    priors |= FIRST_OWN
    values = fit(rows.part(first & ~at_once), priors, values, rounds, near)
    values |= {("default", name): mean(values, name) for name in FIRST_PRIORS}
    return _class(rows.part(first & at_once), {"default": {"unequal": (1.5, 0.3)}}, values, rounds, near)


def left_out(rows: Record, label: Callable[[Row], str], near: Values, workers: int | None,
             rounds: int = 40) -> dict[str, float]:  # fmt: skip
    """Predictions of every row from calibrations that saw none of its label.

    The search begins at the full calibration, whose optimum is near, and runs until it moves no more.
    """
    labels = np.array([label(row) for row in rows.row])
    found: dict[str, float] = {}
    with ProcessPoolExecutor(workers) as pool:
        parts = [labels == one for one in dict.fromkeys(labels.tolist())]
        for guesses in pool.map(partial(_without, rows, near, rounds), parts):
            found.update(guesses)
    return found


def _without(rows: Record, near: Values, rounds: int, part: Any) -> dict[str, float]:
    """Predictions of a part of the rows by a calibration on the others."""
    there = rows.part(part)
    return guessed(there, calibrate(rows.part(~part), rounds, near, rows))


def guessed(rows: Record, values: Values) -> dict[str, float]:
    """Each row's prediction by its id."""
    found = speed_arrays.predict(rows, values).tolist()
    return {row.id: value for row, value in zip(rows.row, found, strict=True)}


def folds(row: Row) -> str:
    """One of five parts; rows of one configuration of one source stay together."""
    return str(hash_of(f"{row.group}{row.model}{row.gpus}{row.backend}{row.quantization}{row.tensor}") % 5)


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text)) * 2654435761 % 2**32 >> 7


def table_of_ranges(rows: Sequence[Row], guesses: dict[str, float]) -> dict[str, Any]:
    """Factors (5 % and 95 %) of measured over predicted, by engine, figure and kind of load."""
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.figure == "total":
            continue
        ratio = row.value / guesses[row.id]
        for name in (row.figure, f"{row.figure}.{_load(row)}"):
            ratios[_pair(row)[0], name].append(ratio)
        ratios["unseen", row.figure].append(ratio)
    table: dict[str, Any] = defaultdict(dict)
    for (engine, name), found in sorted(ratios.items()):
        if len(found) >= 12:
            low, high = np.quantile(found, [0.05, 0.95]) ** ELSEWHERE.get(name.split(".")[0], 1.0)
            table[engine][name] = [round(float(low), 3), round(float(high), 3)]
    table["unseen"] = {name: [round(f**WIDER, 3) for f in row[:2]] for name, row in table["unseen"].items()}
    return dict(table)


def inside(
    rows: Sequence[Row], guesses: dict[str, float], label: Callable[[Row], str], table: dict[str, Any]
) -> float:
    """Share of rows whose measurement lies in the range around a guess that saw none of its label.

    A row's engine counts as timed on such a card only if rows of other labels say so.
    """
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        labels[_pair(row)].add(label(row))
    found = []
    for row in rows:
        if row.figure in forecast.FIGURES and not row.alike:
            seen = bool(labels[_pair(row)] - {label(row)})
            own = table.get(_pair(row)[0], {}) if seen else {}
            low, high = forecast.factors(own, table["unseen"], row.figure, _load(row))
            found.append(min(low, 1.0) <= row.value / guesses[row.id] <= max(high, 1.0))
    return sum(found) / len(found)


def _pair(row: Row) -> tuple[str, str]:
    """An engine and the class of a card."""
    seen = speed_rows.situation(row)
    return seen.engine, layout.family(seen.setup.card)


def _load(row: Row) -> str:
    """The kind of load that a row's errors are sorted by."""
    seen = speed_rows.situation(row)
    return forecast.load_kind(seen, queueing.time(seen.setup, row.load, seen.limits, seen.each))


def write(values: Values, rows: Sequence[Row], table: dict[str, Any]) -> None:
    """The files that `predict` reads: what all share, each backend's speed.json, and the other engines."""
    shared = json.loads(SHARED.read_text(encoding="utf-8"))
    shared |= {
        "date": DATE,
        "source": SOURCE,
        "constants": _scope(values, UNKNOWN),
        "ranges": table["unseen"],
    }
    shared["cards"] |= {
        scope.removeprefix("card "): _scope(values, scope)
        for scope in dict.fromkeys(scope for scope, _ in values)
        if scope.startswith("card ")
    }
    SHARED.write_text(json.dumps(shared), encoding="utf-8")
    seen = [speed_rows.situation(row) for row in rows]
    for engine, count in Counter(one.engine for one in seen).items():
        file, place = home(engine)
        data = json.loads(file.read_text(encoding="utf-8"))
        facts = data["engines"][place] if place else data
        flags = {name: value for name, value in facts["constants"].items() if isinstance(value, bool)}
        own = _scope(values, engine) | flags
        facts |= {"source": SOURCE, "constants": own, "rows": count}
        facts["timed_on"] = sorted({layout.family(o.setup.card) for o in seen if o.engine == engine})
        facts["ranges"] = table.get(engine, {})
        for older in facts.get("generations", ()):
            older["factors"] = _scope(values, f"generation {older['name']}")
        data["date"] = DATE
        file.write_text(json.dumps(data), encoding="utf-8")
    subprocess.run([sys.executable, Path(__file__).parents[1] / "tools" / "data.py", "--write"], check=True)


def home(engine: str) -> tuple[Path, str]:
    """The file that holds an engine's facts, and its place in there where it holds several."""
    package = registry.home(engine)
    if package is None:
        return PUBLISHED, engine
    part = getattr(registry.find(engine), "part", "")
    return Path(__file__).parents[1] / "backends" / package / f"{part}speed.json", ""


def _scope(values: Values, scope: str) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for (where, name), value in values.items() if where == scope}


def summary(
    rows: Sequence[Row], guesses: dict[str, float], label: Callable[[Row], str], table: dict[str, Any]
) -> dict[str, Any]:
    """Median and 90th percentile of the relative error, also of each engine's decoding by all figures, and
    what of all figures the ranges hold."""
    found: dict[str, Any] = {"inside": round(inside(rows, guesses, label, table), 4)}
    for figure in ("tpot", "throughput"):
        wanted = [row for row in rows if row.figure == figure and not row.alike]
        if figure == "throughput":
            wanted = [row for row in wanted if row.concurrency is None]
        errors = [abs(guesses[row.id] / row.value - 1) for row in wanted]
        median, p90 = np.quantile(errors, [0.5, 0.9])
        found[figure] = {"rows": len(errors), "median": round(float(median), 4), "p90": round(float(p90), 4)}
    engines: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.figure in ("tpot", "throughput") and not row.alike:
            engines[speed_rows.situation(row).engine].append(abs(guesses[row.id] / row.value - 1))
    found["decode"] = {
        name: {"rows": len(errors), "median": round(float(np.median(errors)), 4)}
        for name, errors in sorted(engines.items())
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="leave out cards, models and sources in turn")
    parser.add_argument(
        "--quick", action="store_true", help="with --check: print models and cards, write nothing"
    )
    parser.add_argument("--workers", type=int, help="processes for what is left out; default: one a core")
    options = parser.parse_args()
    rows = speed_rows.rows()
    arrays = speed_arrays.table(rows)
    values = calibrate(arrays, near=known())
    unseen = left_out(arrays, folds, values, options.workers)
    table = table_of_ranges(rows, unseen)
    if options.quick:
        report(arrays, values, table, ("model", "card"), options.workers)
        return
    write(values, rows, table)
    if options.check:
        found = report(arrays, values, table, tuple(LABELS), options.workers)
        found["configuration"] = summary(rows, unseen, folds, table)
        LEFT_OUT.write_text(json.dumps({"date": DATE, "labels": found}, indent=1) + "\n", encoding="utf-8")


def known() -> Values:
    """The values of the files: where a search begins."""
    shared = layout.shared()
    found = {("default", name): value for name, value in shared["constants"].items()}
    found |= {(f"card {card}", n): value for card, row in shared["cards"].items() for n, value in row.items()}
    for engine, row in layout.classes().items():
        found |= {
            (engine, n): value for n, value in row.get("constants", {}).items() if not isinstance(value, bool)
        }
        for older in row.get("generations", ()):
            found |= {(f"generation {older['name']}", n): value for n, value in older["factors"].items()}
    return found


def report(
    rows: Record, values: Values, table: dict[str, Any], names: Sequence[str], workers: int | None
) -> dict[str, dict[str, Any]]:
    """Prints, as they come, the errors on rows whose card, model or source was left out."""
    found = {}
    for name in names:
        guesses = left_out(rows, LABELS[name], values, workers)
        found[name] = summary(list(rows.row), guesses, LABELS[name], table)
        print("left out by", name, found[name], flush=True)
    return found


def _card(row: Row) -> str:
    return speed_rows.situation(row).setup.card.name


def _twin(row: Row) -> str:
    """DeepSeek-R1 and DeepSeek-V3 have one configuration, and some of their rows are one measurement."""
    return "DeepSeek R1 or V3" if row.model.endswith(("DeepSeek-R1", "DeepSeek-V3")) else row.model


LABELS: dict[str, Callable[[Row], str]] = {
    "card": _card,
    "model": lambda row: row.model,
    "architecture": _twin,
    "source": lambda row: row.group,
}

if __name__ == "__main__":
    main()
