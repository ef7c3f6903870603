"""The figures that the speed model is held to, on every fifth published row."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from memserve.speed import predict

PUBLISHED = Path(__file__).parents[1] / "data" / "speed_rows.jsonl"
ROWS = [json.loads(line) for line in PUBLISHED.read_text(encoding="utf-8").splitlines()]
FIGURES = {"tpot": ("tpot_ms", 1e-3), "ttft": ("ttft_ms", 1e-3), "throughput": ("output_tokens_per_s", 1.0)}


@pytest.fixture(scope="module")
def judged():
    """(row, relative error, inside the range) by figure."""
    found = defaultdict(list)
    for row in ROWS:
        speed = predict(
            row["model"], row["gpus"], backend=row["backend"], engine_version=row["version"],
            quantization=row["quantization"], tensor_parallel=row["tensor"], input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"], concurrency=row["concurrency"],
        )  # fmt: skip
        name, unit = FIGURES[row["figure"]]
        stated = getattr(speed, name)
        error = abs(stated.likely * unit / row["value"] - 1)
        found[row["figure"]].append((row, error, stated.low * unit <= row["value"] <= stated.high * unit))
    return found


def quantile(rows, share):
    errors = sorted(error for _, error, _ in rows)
    return errors[int(share * len(errors))]


def test_time_per_output_token(judged):
    assert len(judged["tpot"]) > 250
    assert quantile(judged["tpot"], 0.5) <= 0.15
    assert quantile(judged["tpot"], 0.9) <= 0.50


def test_maximum_throughput(judged):
    most = [found for found in judged["throughput"] if found[0]["concurrency"] is None]
    assert len(most) > 20
    assert quantile(most, 0.5) <= 0.22


@pytest.mark.parametrize("figure", ["tpot", "ttft", "throughput"])
def test_measurements_lie_inside_the_stated_range(judged, figure):
    inside = [within for _, _, within in judged[figure]]
    assert 0.80 <= sum(inside) / len(inside) <= 0.97
