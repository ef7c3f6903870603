"""Fits src/memserve/speed/data/constants.json on the published measurements. Needs numpy and scipy.

    python benchmarks/fit_speed.py            fit, then write the constants and the ranges
    python benchmarks/fit_speed.py --check    also leave out cards, models and sources in turn (20 minutes)
    python benchmarks/fit_speed.py --quick    print what models and cards left out give, and write nothing

Every constant has a prior (what a profile of such an engine shows) and a width in log space; rows pull it
away from there only as far as they agree. Errors count by a robust loss, so that mislabelled rows and
speculative decoding do not bend the model.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_rows
from speed_search import MIXES, SERVERS, fit, mean, predictor

from memserve.speed import constants, ranges, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from speed_rows import Row
    from speed_search import Key, Values

HOME = Path(__file__).parents[1] / "src" / "memserve" / "speed" / "data" / "constants.json"
LEFT_OUT = Path(__file__).with_name("speed_left_out.json")
DATE = "2026-11-20"

SHARED_PRIORS = {
    "weights": (0.82, 0.1, (0.6, 0.92)),
    "cache": (0.75, 0.2, (0.3, 0.92)),
    "gemm": (0.55, 0.25, (0.2, 0.9)),
    "prefill": (0.6, 0.25, (0.2, 0.85)),
    "attention": (0.4, 0.4, (0.1, 0.8)),
    "experts": (0.4, 0.5, (0.1, 1.0)),
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
OTHER_PRIORS = {
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
    "ascend": {
        "weights": (0.5, 0.3), "cache": (0.5, 0.3), "layer_s": (0.15e-3, 0.7), "expert_s": (0.1e-3, 0.7),
        "prompt_s": (0.3e-3, 0.7), "reduce_s": (50e-6, 0.7), "step_s": (2e-3, 0.7),
        "sequence_s": (20e-6, 0.7), "prefill": (0.4, 0.3), "gemm": (0.4, 0.3), "unpack": (0.8, 0.3),
    },
}  # fmt: skip
FIRST_PRIORS = {"first_s": (0.03, 0.7), "queue": (0.2, 0.8)}
HOST_PRIORS = {
    "layer_s": (0.05, 0.7),
    "quantized_layer_s": (0.05, 0.7),
    "weights": (1.0, 0.3),
    "cache": (10.0, 0.5),
}
CARD_PRIORS = dict.fromkeys(("weights", "gemm", "prefill", "layer_s"), (1.0, 0.12, (0.6, 1.6)))

SOURCE = (
    "benchmarks/fit_speed.py on published rows: InferenceMAX, gpustack performance-lab, TensorRT-LLM docs, "
    "llama.cpp, AutoAWQ, MLC, exllamav2, Qwen, vllm-ascend (facts/hardware.md section 2)"
)


def calibrate(
    rows: Sequence[Row], rounds: int = 18, near: Values | None = None, whole: Sequence[Row] = ()
) -> Values:
    """All constants: the servers together, then each other class, then the time to the first token.

    `near` are values to begin at; a class that has all its rows of `whole` keeps them as they are.
    """
    near, found, full = near or {}, _by_engine(rows), _by_engine(whole)
    same = {engine for engine, own in full.items() if len(own) == len(found[engine])}
    if same.issuperset(SERVERS):
        values = {key: value for key, value in near.items() if key[0] not in OTHER_PRIORS}
    else:
        values = _servers([row for name in SERVERS for row in found[name]], rounds, near)
    for engine, priors in OTHER_PRIORS.items():
        timed = [row for row in found[engine] if row.figure != "ttft" and row.backend != "ipex"]
        values = _class(timed, engine, priors, values, rounds, near, engine in same)
    hosts = [row for row in found["hf"] if row.backend == "ipex"]
    values = _class(hosts, "card cpu", HOST_PRIORS, values, rounds, near, "hf" in same)
    for engine in found:
        first = [row for row in found[engine] if row.figure == "ttft"]
        values = _class(first, engine, FIRST_PRIORS, values, 10, near, engine in same)
    return values


def _by_engine(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if speed_rows.unfit(row) is None:
            found[speed_rows.situation(row).engine].append(row)
    return found


def _class(
    rows: Sequence[Row], scope: str, priors: dict[str, tuple[Any, ...]], values: Values, rounds: int,
    near: Values, keep: bool,
) -> Values:  # fmt: skip
    """One class's own constants: fitted, kept, or left at the defaults where no row is there."""
    wanted = {(scope, name): prior for name, prior in priors.items()}
    if keep and near:
        return values | {key: near[key] for key in wanted if key in near}
    return fit(rows, wanted, values, rounds, near) if rows else values


def _servers(rows: Sequence[Row], rounds: int, near: Values) -> Values:
    priors: dict[Key, tuple[Any, ...]] = {("default", name): prior for name, prior in SHARED_PRIORS.items()}
    for engine in SERVERS:
        priors |= {(engine, name): prior for name, prior in ENGINE_PRIORS.items()}
    for family in ("blackwell", "ampere"):
        priors |= {(f"card {family}", name): prior for name, prior in CARD_PRIORS.items()}
    priors |= {("generation vllm 0.11", name): (3.0, 0.7) for name in ("sequence_s", "step_s")}
    timed = [row for row in rows if row.figure in {"tpot", "throughput"}]
    values = fit(timed, priors, {}, rounds, near)
    for name in ENGINE_PRIORS:
        values["default", name] = mean(values, name)
    return values


def left_out(
    rows: Sequence[Row], label: Callable[[Row], str], near: Values, workers: int | None, rounds: int = 10
) -> dict[str, float]:
    """Predictions of every row from calibrations that saw none of its label.

    The search begins at the full calibration, whose optimum is near, and runs until it moves no more.
    """
    parts = defaultdict(list)
    for row in rows:
        parts[label(row)].append(row)
    found: dict[str, float] = {}
    with ProcessPoolExecutor(workers) as pool:
        for guesses in pool.map(partial(_without, rows, near, rounds), parts.values()):
            found.update(guesses)
    return found


def _without(rows: Sequence[Row], near: Values, rounds: int, part: Sequence[Row]) -> dict[str, float]:
    """Predictions of a part of the rows by a calibration on the others."""
    gone = {row.id for row in part}
    run = predictor(calibrate([row for row in rows if row.id not in gone], rounds, near, rows))
    return {row.id: run(row) for row in part}


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
        seen = speed_rows.situation(row)
        timing = serve.time(seen.setup, row.load, seen.limits, seen.each)
        ratio = row.value / guesses[row.id]
        for name in (row.figure, f"{row.figure}.{ranges.kind(seen, timing)}"):
            ratios[seen.engine, name].append(ratio)
            ratios["unseen", row.figure].append(ratio)
    table: dict[str, Any] = defaultdict(dict)
    for (engine, name), found in sorted(ratios.items()):
        if len(found) >= 12:
            low, high = np.quantile(found, [0.05, 0.95])
            table[engine][name] = [round(float(low), 3), round(float(high), 3), len(found)]
    return dict(table)


def write(values: Values, rows: Sequence[Row], table: dict[str, Any]) -> None:
    """The data file that `predict` reads."""
    engines: dict[str, dict[str, Any]] = defaultdict(dict)
    cards: dict[str, dict[str, float]] = defaultdict(dict)
    generations: dict[str, dict[str, float]] = defaultdict(dict)
    for (scope, name), value in values.items():
        number = float(f"{value:.3g}")
        if scope.startswith("card "):
            cards[scope.removeprefix("card ")][name] = number
        elif scope.startswith("generation "):
            generations[scope.removeprefix("generation ")][name] = number
        else:
            engines[scope][name] = number
    engines["hf"]["overlaps"] = True
    for name in MIXES:
        engines[name]["mixes"] = True
    seen: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        situation = speed_rows.situation(row)
        seen[situation.engine].add(constants.family(situation.setup.card))
    unseen = {name: [round(v[0] ** 1.2, 3), round(v[1] ** 1.2, 3)] for name, v in table.pop("unseen").items()}
    data = {
        "date": DATE,
        "source": SOURCE,
        "rows": dict(Counter(speed_rows.situation(row).engine for row in rows)),
        "engines": engines,
        "cards": cards,
        "generations": generations,
        "seen": {engine: sorted(found) for engine, found in sorted(seen.items())},
        "ranges": {**table, "unseen": unseen},
    }
    HOME.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def summary(rows: Sequence[Row], guesses: dict[str, float]) -> dict[str, Any]:
    """Median and 90th percentile of the relative error: time per token, maximum throughput."""
    found = {}
    for figure in ("tpot", "throughput"):
        wanted = [row for row in rows if row.figure == figure and not row.alike]
        if figure == "throughput":
            wanted = [row for row in wanted if row.concurrency is None]
        errors = [abs(guesses[row.id] / row.value - 1) for row in wanted]
        median, p90 = np.quantile(errors, [0.5, 0.9])
        found[figure] = {"rows": len(errors), "median": round(float(median), 4), "p90": round(float(p90), 4)}
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
    values = calibrate(rows)
    if options.quick:
        report(rows, values, ("model", "card"), options.workers)
        return
    unseen = left_out(rows, folds, values, options.workers)
    write(values, rows, table_of_ranges(rows, unseen))
    if options.check:
        found = report(rows, values, tuple(LABELS), options.workers)
        found["configuration"] = summary(rows, unseen)
        LEFT_OUT.write_text(json.dumps({"date": DATE, "labels": found}, indent=1) + "\n", encoding="utf-8")


def report(
    rows: Sequence[Row], values: Values, names: Sequence[str], workers: int | None
) -> dict[str, dict[str, Any]]:
    """Prints, as they come, the errors on rows whose card, model or source was left out."""
    run = predictor(values)
    print("all seen", summary(rows, {row.id: run(row) for row in rows}), flush=True)
    found = {}
    for name in names:
        found[name] = summary(rows, left_out(rows, LABELS[name], values, workers))
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
