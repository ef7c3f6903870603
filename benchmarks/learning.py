"""Predictions of a real server after `memserve plan --calibrate`: two workloads teach, others are predicted.

    python benchmarks/learning.py --base-url URL --model NAME --spec FOLDER --backend vllm
        [--gpus cpu] [--rounds 5] [--taught 128:8:4 16:32:4] [--others 64:16:4 32:32:4 128:24:4]

NAME is what the server calls it, FOLDER (or a name) what it is. The rounds go through all workloads in turn,
and each figure is the median of its rounds, so that what else the machine does falls on every workload alike.
Printed: each figure of the others, its prediction before and after, how far that is off, and the median.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

FIGURES = ("ttft_ms", "tpot_ms", "output_tokens_per_s")


def mean(row: dict[str, Any], name: str) -> float:
    value = row[name]
    return float(value["mean"] if isinstance(value, dict) else value)


def rows(given: argparse.Namespace, place: Path) -> dict[str, dict[str, Any]]:
    """Each workload's report, with the medians of all rounds in its row."""
    from memserve.bench import Level, measure
    from memserve.bench.target import opened
    from memserve.speed.workloads import find

    found: dict[str, list[dict[str, Any]]] = {}
    words = {"backend": given.backend, "base_url": given.base_url, "gpus": given.gpus,
             "checkpoint": given.spec, "most": 8}  # fmt: skip
    with opened(given.model, **words) as target:
        for number in range(given.rounds):
            for load in (*given.taught, *given.others):
                report = measure(target, find(load), [Level(given.concurrency)], warm_up=1).to_dict()
                found.setdefault(load, []).append(report)
                told = (f"{name} {mean(report['results'][0], name):.4g}" for name in FIGURES)
                print(f"round {number + 1}, {load}:", *told, flush=True)
    return {load: _median(load, reports, place) for load, reports in found.items()}


def _median(load: str, reports: list[dict[str, Any]], place: Path) -> dict[str, Any]:
    whole = json.loads(json.dumps(reports[0]))
    (row,) = whole["results"]
    for name in FIGURES:
        value = median(mean(report["results"][0], name) for report in reports)
        row[name] = {**row[name], "mean": value} if isinstance(row[name], dict) else value
    (place / f"{load.replace(':', '-')}.json").write_text(json.dumps(whole))
    return row


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--base-url", required=True)
    words.add_argument("--model", required=True)
    words.add_argument("--spec", required=True)
    words.add_argument("--backend", required=True)
    words.add_argument("--gpus", default="cpu")
    words.add_argument("--concurrency", type=int, default=1)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--taught", nargs="+", default=["128:8:4", "16:32:4"])
    words.add_argument("--others", nargs="+", default=["64:16:4", "32:32:4", "128:24:4"])
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["MEMSERVE_CONFIG_DIR"] = name
        compared(given, rows(given, Path(name)), Path(name))


def compared(given: argparse.Namespace, found: dict[str, dict[str, Any]], place: Path) -> None:
    """Teach with some, predict the others, print both."""
    from memserve.plan.__main__ import main as plan

    for load in given.taught:
        plan([given.spec, "--calibrate", str(place / f"{load.replace(':', '-')}.json")])
    off = []
    for load in given.others:
        row = found[load]
        after = predicted(given, row)
        for name in FIGURES:
            told, value = after[name]["likely"], mean(row, name)
            off.append(abs(told / value - 1))
            before = row["predicted"][name]["likely"]
            said = f"before {before:9.4g} after {told:9.4g} {told / value - 1:+7.1%}"
            print(f"{load:>10} {name:20} {value:9.4g} {said}")
    print(f"median off {median(off):.1%}, largest {max(off):.1%}")


def predicted(given: argparse.Namespace, row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What is said now for the tokens and the concurrency that there were."""
    from memserve.hardware import detect, parse
    from memserve.model import load
    from memserve.speed import predict

    machine = detect() if given.gpus == "cpu" else parse(given.gpus)
    told: dict[str, dict[str, float]] = predict(
        load(given.spec), machine, backend=given.backend, input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"], concurrency=given.concurrency,
    ).to_dict()  # fmt: skip
    return told


if __name__ == "__main__":
    main()
