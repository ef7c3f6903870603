"""`memserve plan --calibrate bench.json`: what is learnt from two workloads holds for others."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from batching import Batching
from simulated import virtual

from memserve.__main__ import main
from memserve.bench import Level, Target
from memserve.bench.measuring import ameasure
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.errors import InvalidInput
from memserve.plan import best
from memserve.plan.search import judging
from memserve.speed import learnt, predict
from memserve.speed.workloads import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL, GPUS, BACKEND = "llama-8b", "1xL4", "vllm"
TAUGHT = ("1000:32:32", "128:256:32")
OTHERS = ("1000:100:32", "200:300:32", "64:16:64", "2000:50:32")
FIGURES = ("ttft_ms", "tpot_ms", "output_tokens_per_s")
SLOW = Batching()
LIKE_OTHERS = (
    Batching(first=0.005, a_prompt_token=0.0001, a_step=0.012, a_sequence=0.0003, a_kept_token=2e-7),
    Batching(first=0.05, a_prompt_token=0.0003, a_step=0.02, a_sequence=0.0005, a_kept_token=5e-7),
    Batching(first=0.01, a_prompt_token=0.004, a_step=0.08, a_sequence=0.01, a_kept_token=5e-6),
)
"""A fast card, a crowded one, and what a CPU would do."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration folder of its own, and nothing remembered of another."""
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path))
    forgotten()
    yield tmp_path
    forgotten()


def forgotten() -> None:
    learnt.everything.cache_clear()
    judging._calibrations.cache_clear()


def measured(engine: Batching, load: str, *levels: int) -> dict[str, Any]:
    with virtual() as (_, loop):
        generator = Generator(engine, for_engine(engine, 1000))
        target = Target(generator, {"model": MODEL, "backend": BACKEND, "gpus": GPUS})
        work = ameasure(target, find(load), [Level(count) for count in levels], seed=1)
        return loop.run_until_complete(work).to_dict()


def taught(place: Path, engine: Batching, *loads: str) -> None:
    for number, load in enumerate(loads):
        file = place / f"bench{number}.json"
        file.write_text(json.dumps(measured(engine, load, 1, 4, 16)))
        assert main(["plan", "--calibrate", str(file)]) == 0
    forgotten()


def misses(row: dict[str, Any]) -> list[float]:
    told = predict(
        MODEL, GPUS, backend=BACKEND, input_tokens=row["input_tokens"], output_tokens=row["output_tokens"],
        concurrency=row["concurrency"],
    ).to_dict()  # fmt: skip
    real = (row[name]["mean"] if isinstance(row[name], dict) else row[name] for name in FIGURES)
    return [abs(told[name]["likely"] / value - 1) for name, value in zip(FIGURES, real, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", [SLOW, *LIKE_OTHERS])
def test_other_workloads_are_predicted(place: Path, engine: Batching) -> None:
    rows = [row for load in OTHERS for row in measured(engine, load, 2, 8, 32)["results"]]
    before = [median(column) for column in zip(*map(misses, rows), strict=True)]
    taught(place, engine, *TAUGHT)
    after = [median(column) for column in zip(*map(misses, rows), strict=True)]
    assert all(miss <= 0.15 for miss in after), after
    assert sum(after) < sum(before) / 2


def test_what_taught_is_predicted_and_named_in_answers(place: Path) -> None:
    taught(place, SLOW, "512:128:16")
    (one,) = learnt.load()
    assert (one.backend, one.card, one.tensor, len(one.rows)) == (BACKEND, "L4", 1, 3)
    assert all(max(misses({**row, "ttft_ms": {"mean": row["ttft_ms"]}, "tpot_ms": {"mean": row["tpot_ms"]}}))
               < 0.1 for row in one.rows)  # fmt: skip
    named = [told for told in best(MODEL, GPUS, backend=BACKEND).assumptions if "calibration" in told["name"]]
    assert [told["name"] for told in named] == ["speed_calibration"] and "bench0.json" in named[0]["source"]
    speed = predict(MODEL, GPUS, backend=BACKEND, input_tokens=512, output_tokens=128, concurrency=4)
    assert not speed.at_most and speed.tpot_ms.high / speed.tpot_ms.low < 1.5


@pytest.mark.slow
def test_another_card_or_engine_is_as_it_was(place: Path) -> None:
    def told(gpus: str, backend: str) -> Any:
        return predict(MODEL, gpus, backend=backend, input_tokens=500, output_tokens=100, concurrency=4)

    asked = (("1xA100", BACKEND), ("1xL4", "sglang"))
    before = [told(*one) for one in asked]
    taught(place, SLOW, "512:128:16")
    assert [told(*one) for one in asked] == before


def test_lists_shares_and_forgets(place: Path, capsys: pytest.CaptureFixture[str],
                                  tmp_path_factory: pytest.TempPathFactory,
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    taught(place, SLOW, "512:128:16")
    capsys.readouterr()
    assert main(["plan", "--calibrations"]) == 0
    assert "1  vllm" in capsys.readouterr().out
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(elsewhere))
    forgotten()
    assert main(["plan", "--calibrate", str(place / "speed.json")]) == 0
    assert [one.factors for one in learnt.load()] == [
        one.factors for one in learnt.load(place / "speed.json")
    ]
    assert main(["plan", "--forget", "2"]) == 2 and main(["plan", "--forget", "all"]) == 0
    assert learnt.load() == ()


def test_a_factor_that_cannot_be_is_told_once(tmp_path: Path) -> None:
    row = {"backend": BACKEND, "card": "L4", "model": "m", "factors": {"steps": 1e9}, "rows": []}
    (file := tmp_path / "speed.json").write_text(json.dumps({"schema": 1, "speeds": [row]}))
    with pytest.raises(InvalidInput, match="a factor of m is unknown, or out of bounds") as told:
        learnt.load(file)
    assert str(told.value).count("holds no speeds") == 1


def test_a_start_up_log_in_the_report_teaches_memory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(SLOW, "64:8:4", 1)
    report["memory"]["startup_log"] = {
        "backend": BACKEND,
        "non_torch": 2**28,
        "total": -5,
        "version": "0.19.1",
    }
    (place / "bench.json").write_text(json.dumps(report))
    assert main(["plan", "--calibrate", str(place / "bench.json"), "--gpus", GPUS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calibration"]["non_torch"] == 0.25 and "total" not in found["calibration"]
    assert len(found["speeds"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        {}, {"results": []}, {"speeds": 3}, {"speeds": [{"backend": "b"}]}, {"results": [3], "target": {}},
        {"speeds": [{"backend": "b", "card": "c", "factors": {"prompts": 0}}]},
        {"results": [{"ttft_ms": None}], "target": {"backend": "vllm", "gpus": "1xL4", "model": MODEL}},
        *({"results": [{"input_tokens": 32, "output_tokens": 8, "concurrency": 1, "ttft_ms": {"mean": 5}}],
           "target": {"backend": "embedded", "gpus": "cpu", "model": own}}
          for own in ("smollm2", "SmolLM2-135M-Instruct-Q4_1")),
    ],
)  # fmt: skip
def test_what_teaches_nothing_is_one_line(
    place: Path, content: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "bench.json").write_text(json.dumps(content))
    assert main(["plan", "--calibrate", str(place / "bench.json")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "memserve failed" not in err
    assert ("the speed of embedded is not planned" in err) == ("embedded" in json.dumps(content))
