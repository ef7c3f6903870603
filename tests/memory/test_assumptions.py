"""What vLLM takes at start without being told: the release's own rules, changed by a flag or a variable."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from starts import config

import memserve.plan
from memserve.hardware import parse
from memserve_vllm.memory import accountant

NAMES = {
    "max_num_batched_tokens", "max_num_seqs", "block_size", "gpu_memory_utilization", "chunked_prefill",
    "graphs_in_budget", "sampler", "engine", "model_runner",
}  # fmt: skip
LLAMA, QWEN3, MOE = "Llama-3.1-8B-Instruct", "Qwen3-32B", "Qwen3-30B-A3B-Instruct-2507"


@pytest.fixture
def taken(tmp_path):
    def ask(gpus, version, words="", variables="", name=LLAMA):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config(name)), encoding="utf-8")
        command = f"{variables} vllm serve {path} --max-model-len 8192 {words}"
        plan = memserve.plan.check(command, gpus, engine_version=version)
        assert all(one["source"] for one in plan.assumptions)
        assert plan.to_dict()["assumptions"] == plan.assumptions
        found = {one["name"]: one["value"] for one in plan.assumptions}
        assert set(found) >= NAMES
        return found

    return ask


# Read in engine/arg_utils.py of each release; the large defaults begin at 70 GiB.
BATCH = [
    ("0.8.2", "H100", 8192, 1024), ("0.8.2", "A100", 2048, 1024), ("0.8.2", "MI300X", 8192, 256),
    ("0.8.3", "A100", 2048, 1024), ("0.8.4", "A100", 2048, 256), ("0.8.5", "A100", 8192, 1024),
    ("0.8.5", "L4", 2048, 256), ("0.9.0", "A100", 2048, 256),
    ("0.9.2", "H20", 8192, 1024), ("0.11.0", "H100", 8192, 1024), ("0.25.1", "B200", 8192, 1024),
    ("0.27.1", "MI300X", 8192, 1024), ("0.28.0", "B200", 16384, 1024), ("0.28.0", "H200", 8192, 1024),
    ("0.32.0", "GB10", 8192, 1024), ("0.33.0", "GB10", 2048, 256), ("0.33.0", "RTX5090", 2048, 256),
]  # fmt: skip


@pytest.mark.parametrize(("version", "card", "tokens", "sequences"), BATCH)
def test_the_batch_by_card_and_release(taken, version, card, tokens, sequences):
    found = taken(f"1x{card}", version)
    assert (found["max_num_batched_tokens"], found["max_num_seqs"]) == (tokens, sequences)


RUNNERS = [
    ("0.21.0", QWEN3, "V1"), ("0.22.1", QWEN3, "V2"), ("0.22.1", LLAMA, "V1"), ("0.23.0", LLAMA, "V2"),
    ("0.24.0", MOE, "V1"), ("0.25.1", "gemma-3-27b-it", "V2"), ("0.28.0", MOE, "V1"), ("0.29.0", MOE, "V2"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "name", "runner"), RUNNERS)
def test_the_model_runner_by_release_and_architecture(taken, version, name, runner):
    assert taken("1xH100", version, name=name)["model_runner"] == runner


SAMPLERS = [
    ("0.8.5", "A100", "", "pytorch"), ("0.11.0", "H100", "VLLM_USE_FLASHINFER_SAMPLER=1", "flashinfer"),
    ("0.12.0", "H100", "", "pytorch"), ("0.18.0", "H100", "", "triton"), ("0.21.0", "T4", "", "flashinfer"),
    ("0.24.0", "T4", "", "triton"), ("0.24.0", "L4", "VLLM_USE_FLASHINFER_SAMPLER=0", "triton"),
    ("0.21.0", "V100", "", "triton"), ("0.24.0", "MI300X", "", "triton"),
    ("0.24.0", "MI300X", "VLLM_ROCM_USE_AITER=1", "aiter"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "card", "variable", "sampler"), SAMPLERS)
def test_the_sampler_by_release_card_and_variable(taken, version, card, variable, sampler):
    assert taken(f"1x{card}", version, variables=variable)["sampler"] == sampler


BUDGETS = [
    ("0.19.1", "H100", "", False), ("0.20.0", "H100", "", True), ("0.20.0", "MI300X", "", False),
    ("0.25.1", "H100", "", False), ("0.28.0", "H100", "VLLM_USE_V2_MODEL_RUNNER=0", True),
    ("0.29.0", "H100", "", True), ("0.29.0", "MI300X", "", True),
]  # fmt: skip


@pytest.mark.parametrize(("version", "card", "variable", "inside"), BUDGETS)
def test_graphs_leave_the_budget_by_release_runner_and_maker(taken, version, card, variable, inside):
    assert taken(f"1x{card}", version, variables=variable)["graphs_in_budget"] is inside
    assert taken(f"1x{card}", version, "--enforce-eager", variable)["graphs_in_budget"] is False


@pytest.mark.parametrize(
    ("version", "card", "engine"),
    [("0.7.3", "H100", "V0"), ("0.10.1", "T4", "V0"), ("0.10.2", "T4", "V1"), ("0.8.5", "MI300X", "V0")],
)
def test_the_engine_by_release_and_card(taken, version, card, engine):
    assert taken(f"1x{card}", version)["engine"] == engine
    assert taken("1xH100", "0.9.2", variables="VLLM_USE_V1=0")["engine"] == "V0"


V0_BY = [
    ("0.8.2", "--enable-lora", "", "0.8.3"), ("0.10.0", "--num-scheduler-steps 8", "", ""),
    ("0.10.2", "--kv-cache-dtype fp8", "", "0.11.0"),
    ("0.8.4", "", "VLLM_ATTENTION_BACKEND=FLASHINFER", "0.8.5"),
    ("0.8.5", """--speculative-config '{"method": "medusa", "model": "m"}'""", "", "0.9.0"),
]  # fmt: skip


@pytest.mark.parametrize(("last", "words", "variables", "since"), V0_BY)
def test_what_v1_could_not_do_kept_v0(taken, last, words, variables, since):
    assert taken("1xL4", last, words, variables)["engine"] == "V0"
    assert taken("1xL4", last)["engine"] == "V1"
    assert not since or taken("1xL4", since, words, variables)["engine"] == "V1"


def test_a_flag_is_what_is_taken(taken):
    found = taken("1xL4", "0.19.0", "--max-num-seqs 8 --max-num-batched-tokens 512 --block-size 32")
    assert (found["max_num_seqs"], found["max_num_batched_tokens"], found["block_size"]) == (8, 512, 32)
    assert taken("1xL4", "0.19.0", "--max-num-batched-tokens 128")["max_num_seqs"] == 128


def test_fewer_tokens_than_sequences_were_refused_up_to_0_10_0(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(config(LLAMA)), encoding="utf-8")
    command = f"vllm serve {path} --max-model-len 4096 --max-num-batched-tokens 512"
    old, new = (memserve.plan.check(command, "1xH100", engine_version=v) for v in ("0.10.0", "0.10.1"))
    assert (old.outcome, new.outcome) == ("refused", "runs")
    assert "max-num-seqs" in old.reasons[0]


def test_flashinfers_sampler_leaves_more_for_the_cache(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(config(QWEN3)), encoding="utf-8")
    ask = f"vllm serve {path} --max-model-len 4096"
    least, most = (
        memserve.plan.check(f"{word} {ask}", "1xH100", engine_version="0.11.0").memory_gib_per_card[
            "kv_cache"
        ]
        for word in ("VLLM_USE_FLASHINFER_SAMPLER=0", "VLLM_USE_FLASHINFER_SAMPLER=1")
    )
    assert 3 < most - least < 4


def test_a_plan_says_on_its_page_what_it_took():
    plan = memserve.plan.best("llama-8b", "1xL4", backend="vllm")
    assert {one["name"] for one in plan.assumptions} >= NAMES
    assert "max_num_batched_tokens" in str(plan)


def test_every_row_of_the_tables_can_be_reached():
    """No release and card falls through, and the last row of each table holds for the newest."""
    tables = ("engine", "batch", "bounds", "sampler_path", "runner", "block", "graph_estimate", "sampler")
    for version in ("0.4.0", "0.8.2", "0.11.0", "0.20.0", "0.33.0", "newest"):
        for card in ("T4", "H100", "MI300X", "B200"):
            for table in tables:
                assert accountant.facts.row(table, version, parse(f"1x{card}").card)["source"]
