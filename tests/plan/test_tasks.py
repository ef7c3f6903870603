"""The other questions: a pair on the same cards, any card, training, calibration, pictures."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from extras import need

import memserve.plan
from memserve.hardware import cards
from memserve.hardware.machine import Machine
from memserve.plan.__main__ import main
from memserve.plan.query import Query
from memserve.plan.search.choice import first
from memserve.plan.tasks.training import TrainOptions, read

MACHINES = ("GTX1660", "1xRTX3090", "2xT4", "4xA100-80GB", "8x910B2", "M3-Max", "2x8xH100")
STARTUP = Path(__file__).parents[1] / "data" / "startup"


def answered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, object]:
    assert main([*words, "--json"]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_pair_shares_the_cards(capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "llama-8b", "--gpus", "1xA100-40GB", "--embedder", "BAAI/bge-large-en-v1.5")
    plan, beside = answer["plan"], answer["embedder"]
    assert isinstance(plan, dict) and isinstance(beside, dict)
    shares = [
        float(one["command"][one["command"].index("--gpu-memory-utilization") + 1]) for one in (plan, beside)
    ]
    assert sum(shares) <= 0.95 and beside["command"][-2:] == ["--port", "8001"]
    assert beside["model"]["id"] == "BAAI/bge-large-en-v1.5" and "--runner" in beside["command"]


def test_an_embedder_at_a_provider_takes_no_card(capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "llama-8b", "--gpus", "1xL4", "--embedder", "text-embedding-3-small")
    beside = answer["embedder"]
    assert isinstance(beside, dict)
    assert (beside["command"], beside["env"], beside["placement"]) == ([], {}, "at its provider")


@pytest.mark.parametrize("generator", ["llama-70b", "smollm2", "gpt-4o-mini"])
def test_what_makes_no_vectors_is_no_embedder(generator: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", "2xA100", "--embedder", generator]) == 2
    assert "makes no vectors" in capsys.readouterr().err


def test_a_pair_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("llama-70b", "--gpus", "1xL4", "--embedder", "BAAI/bge-m3", "--backend", "vllm")
    assert answered(capsys, *words, code=1)["plan"] is None


def test_any_card_gives_the_smallest_machines(capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "llama-70b", "--gpus", "any")
    machines = {row["card"]: row for row in answer["machines"]}  # type: ignore[attr-defined]
    assert machines["V100-32GB"]["cards_by_level"] == {"16 bit": 8, "8 bit": 4, "4 bit": 2}
    assert machines["H200"]["cards"] == 1 and machines["L4"]["cards_by_level"]["4 bit"] == 2
    assert machines["910B2"]["backend"] in ("ascend", "sglang")
    assert "TPU-v5e" not in machines
    priced = [row["usd_per_hour"] for row in answer["machines"] if row["usd_per_hour"]]  # type: ignore[attr-defined]
    assert priced == sorted(priced) and answer["fits"] is True


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "model", ["gpt-oss-20b", "llama-8b", "Qwen/Qwen3-8B-AWQ", "qwen3-32b", "deepseek-v3"]
)
def test_any_card_lists_each_that_holds_the_model_with_its_plan(model: str) -> None:
    rows = {row.card.name: row for row in memserve.plan.anywhere(model).rows}
    for card in random.Random(model).sample([one for one in cards() if one.vendor != "cpu"], 12):
        found = first(memserve.model.load(model), Machine(card=card, cards_per_node=card.per_node), Query())
        assert (card.name in rows) == (found is not None), card.name
        if row := rows.get(card.name):
            plan = memserve.plan.best(model, row.machine)
            assert (plan.backend, plan.quantization) == (row.smallest.backend, row.smallest.quantization)


def test_any_card_for_what_few_engines_know(capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "facebook/contriever", "--gpus", "any")
    machines = {row["card"]: row for row in answer["machines"]}  # type: ignore[attr-defined]
    assert {"T4", "V100-32GB", "H100-80GB", "910B2"} <= set(machines)
    assert {"hf", "sglang"} == {row["backend"] for row in machines.values()}


@pytest.mark.slow
def test_any_card_holds_to_the_time_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "llama-8b", "--gpus", "any", "--ttft", "200", "--tpot", "20")
    slow = [row["card"] for row in answer["machines"] if row["plan"]["speed"]["ttft_ms"]["likely"] > 200]  # type: ignore[attr-defined]
    assert answer["fits"] is True and answer["machines"] and slow == []


def test_8_bit_on_cards_without_fp8_is_int8(capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "llama-8b", "--gpus", "any")
    eight = {row["card"]: row["quantization"] for row in answer["machines"]}  # type: ignore[attr-defined]
    assert eight["M2"] == eight["GTX1060-6GB"] == "gguf-q8_0"
    assert eight["T4"] == "w8a8" and eight["A4000"] == "w8a8" and eight["RTX4070Ti"] == "fp8"


def test_a_provider_needs_no_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, "gpt-4o-mini", "--gpus", "any")["fits"] is True
    assert answered(capsys, "llama-8b", "--gpus", "any", "--backend", "openai")["fits"] is True


def test_a_workload_sets_the_context_and_is_timed_and_priced(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--workload", "30000:200:100", "--deadline", "24h", "--budget", "1000")
    plan = answered(capsys, "llama-8b", "--gpus", "1xH100", *words)["plan"]
    assert isinstance(plan, dict)
    told = plan["workload"]
    assert plan["context"] == 30208 and told["requests"] == 100
    assert 0 < told["hours"]["low"] <= told["hours"]["likely"] <= told["hours"]["high"] < 24
    assert told["within_deadline"] is True and told["machines_for_deadline"] == 1
    assert told["within_budget"] is True and told["usd"]["likely"] > 0
    assert plan["speed"]["input_tokens"] == 30000
    priced = answered(capsys, "gpt-4o-mini", "--gpus", "1xL4", "--workload", "1000:100:1000")["plan"]
    assert isinstance(priced, dict) and priced["workload"]["usd"]["likely"] == pytest.approx(0.21)


def test_bounds_need_a_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", "1xL4", "--deadline", "12h"]) == 2
    assert main(["llama-8b", "--gpus", "1xL4", "--workload", "nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_machine_that_trains_by_computing_again_is_not_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = answered(capsys, "llama-70b", "--gpus", "any", "--train", "qlora")["machines"]
    found = {(row["machine"]["card"], row["machine"]["cards_per_node"]): row["plan"] for row in rows}
    assert found["A100-80GB", 1]["checkpointing"] is True and found["H200", 1]["checkpointing"] is False


def test_training(capsys: pytest.CaptureFixture[str]) -> None:
    small = answered(capsys, "llama-8b", "--gpus", "1xA100", "--train", "qlora", "batch=1", "sequence=1024",
                     "checkpointing")  # fmt: skip
    assert small["fits"] is True
    full = answered(capsys, "llama-8b", "--gpus", "1xL4", "--train", code=1)
    need = full["closest"]["memory_gib_per_card"]  # type: ignore[index]
    assert need["needed"] > need["total"] and need["optimizer_states"] > need["weights"]


@pytest.mark.sampled(15)
@pytest.mark.parametrize("seed", range(60))
def test_what_would_train_does_when_asked(seed: int) -> None:
    draw = random.Random(seed)
    model, gpus = draw.choice(("llama-8b", "qwen3-30b-a3b", "qwen3-0.6b", "llama-70b")), draw.choice(MACHINES)
    asked: TrainOptions = {
        "method": draw.choice(("full", "lora", "qlora")), "batch": draw.choice((1, 3, 64)),
        "sequence": draw.choice((512, 4096, 100_000)), "optimizer": draw.choice(("adamw", "adamw8bit")),
    }  # fmt: skip
    missed = memserve.plan.train(model, gpus, **asked)
    assert not (missed.fits and missed.remedies)
    for remedy in missed.remedies:
        option, words = remedy.partition(":")[0].split(" ", 1)
        changed = read(words.split()) if option == "--train" else asked
        assert memserve.plan.train(model, words if option == "--gpus" else gpus, **changed).fits, remedy
        if changed.get("batch", 1) != asked["batch"]:
            more: TrainOptions = {**changed, "batch": changed.get("batch", 1) + 1}
            assert not memserve.plan.train(model, gpus, **more).fits


@pytest.mark.parametrize("words", [("qlora",), ("lora", "batch=1", "checkpointing"), ()])
def test_training_takes_the_model_last(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    first = answered(capsys, "llama-8b", "--gpus", "2xA100", "--train", *words)
    last = answered(capsys, "--gpus", "2xA100", "--train", *words, "llama-8b")
    assert first == last
    assert main(["--gpus", "2xA100", "--train", *words]) == 2


def test_the_caller_may_price_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    plan = answered(capsys, "llama-8b", "--gpus", "8x910B4@12.5", "--workload", "1000:100:1000")["plan"]
    assert isinstance(plan, dict)
    assert plan["cost"]["usd_per_hour"] == 12.5 and plan["cost"]["source"] == "the price given"
    assert plan["workload"]["usd"]["likely"] == pytest.approx(
        plan["workload"]["hours"]["likely"] * 12.5, rel=1e-3
    )


@pytest.mark.parametrize("spec", ["4xV100@", "4xV100@x", "@3", "4xV100@-1", "4xV100@inf", "any@3", "1xL4@2@"])
def test_a_bad_price_is_one_line(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", spec]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_picture_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", "1xL4", "--plot", str(tmp_path / "none" / "plan.svg")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["svg", "png"])
def test_plots(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("matplotlib", "plot")
    file = tmp_path / f"plan.{ending}"
    assert main(["llama-70b", "--gpus", "4xV100", "--plot", str(file)]) == 0
    head = file.read_bytes()[:200]
    assert b"<?xml" in head if ending == "svg" else head.startswith(b"\x89PNG")
    capsys.readouterr()


def test_calibration_learns_and_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip

    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path))
    from memserve.plan.search import judging

    logs = sorted(STARTUP.glob("*vllm*")) or sorted(STARTUP.iterdir())
    assert logs, "start-up logs are part of the tests' data"
    judging._calibrations.cache_clear()
    assert main(["--calibrate", str(logs[0]), "--gpus", "1xH100", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["saved"]).is_relative_to(tmp_path) and told["calibration"]["card"] == "H100-80GB"
    judging._calibrations.cache_clear()
    assert len(judging._calibrations()) == 1
    judging._calibrations.cache_clear()


def test_rich_pages_render(capsys: pytest.CaptureFixture[str]) -> None:
    from memserve.plan.library import answered as answer_of
    from memserve.plan.page import print_sections
    from memserve.plan.query import Query
    from memserve.plan.sections import of_answer

    found = answer_of("llama-70b", "4xV100", Query())
    print_sections(of_answer(found, why=True, everything=True))
    assert "vllm 0.19.1" in capsys.readouterr().out


def test_a_log_of_another_card_keeps_its_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path))
    log = str(STARTUP / "vllm_0.10.txt")  # of a card with 23.65 GiB
    assert main(["--calibrate", log, "--gpus", "1xH100", "--json"]) == 0
    doubted = json.loads(capsys.readouterr().out)
    assert "23.65 GiB" in doubted["notes"][0] and "total" not in doubted["calibration"]
    assert main(["--calibrate", log, "--gpus", "1xRTX4090", "--json"]) == 0
    trusted = json.loads(capsys.readouterr().out)
    assert trusted["notes"] == [] and trusted["calibration"]["total"] == 23.65


def test_a_log_that_teaches_nothing_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path / "kept"))
    log = tmp_path / "start.log"
    log.write_text("Model loading took 14.9889 GiB and 3.2 seconds\n", encoding="utf-8")
    assert main(["--calibrate", str(log), "--gpus", "1xL4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["saved"] is None
    assert not (tmp_path / "kept").exists()


def test_an_empty_plot_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", "1xL4", "--plot", ""]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_closed_stdout_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["llama-8b", "--gpus", "1xL4"]) == 0
    assert main(["llama-8b", "--gpus", "1xL4", "--json", "--tp", "3"]) == 1
    sys.stdout.close()  # what the command opened in its place
    assert capsys.readouterr().err == ""


def test_any_machine_tells_the_closest_miss(capsys: pytest.CaptureFixture[str]) -> None:
    missed = answered(capsys, "llama-8b", "--gpus", "any", "--context", "10M", code=1)
    assert missed["machines"] == [] and missed["plan"] is None
    assert missed["closest"]["rule"] == "context" and missed["rejected"]  # type: ignore[index]
    assert "--context 131072" in missed["remedies"][0]  # type: ignore[index]
    assert main(["llama-8b", "--gpus", "any", "--context", "10M"]) == 1
    assert "made for 131072 tokens" in capsys.readouterr().out
