"""How vLLM-Ascend and MindIE are started: environment, block size, config.json. Said without an NPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import InvalidInput, Unsupported
from memserve.serve.advice import diagnose
from memserve_ascend.launch import BLOCK

if TYPE_CHECKING:
    from pathlib import Path


def _option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_one_card_needs_no_communication() -> None:
    env = memserve.plan.best("llama-8b", "1x910B2", backend="ascend").env
    assert env["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"
    assert not [name for name in env if name.startswith("HCCL")]


def test_several_cards_get_the_buffer_that_the_account_of_memory_assumed() -> None:
    plan = memserve.plan.best("llama-70b", "8x910B4", backend="ascend")
    assert plan.env["HCCL_BUFFSIZE"] == "200"
    assert plan.env["HCCL_OP_EXPANSION_MODE"] == "AIV"
    assert "ASCEND_RT_VISIBLE_DEVICES" not in plan.env


def test_fewer_cards_than_there_are_are_named() -> None:
    plan = memserve.plan.best("llama-8b", "8x910B4", backend="ascend", tp=2, dp=1)
    assert plan.env["ASCEND_RT_VISIBLE_DEVICES"] == "0,1"


def test_blocks_are_of_128_tokens_in_command_and_account() -> None:
    plan = memserve.plan.best("llama-8b", "1x910B2", backend="ascend")
    assert _option(plan.command, "--block-size") == str(BLOCK) == "128"
    assert plan.kv_cache_tokens % BLOCK == 0


def test_graphs_are_not_subtracted_by_the_engine_so_the_plan_leaves_room() -> None:
    plan = memserve.plan.best("llama-70b", "8x910B4", backend="ascend").to_dict()
    assert float(_option(plan["command"], "--gpu-memory-utilization")) <= 0.9
    assert plan["memory_gib_per_card"]["free"] > plan["memory_gib_per_card"]["graphs"]


def test_modelslims_weights_are_announced() -> None:
    plan = memserve.plan.best("deepseek-v3", "2x8x910B2", backend="ascend", quantization="w8a8")
    assert _option(plan.command, "--quantization") == "ascend"


@pytest.mark.parametrize("quantization", ["gptq", "awq", "nf4"])
def test_what_it_does_not_take_is_refused_with_the_source(quantization: str) -> None:
    found = memserve.plan.candidates("llama-8b", "1x910B2", backend="ascend", quantization=quantization)
    assert found
    assert not any(one.fits for one in found)


def test_several_nodes_are_told_their_addresses_and_interfaces() -> None:
    plan = memserve.plan.best("deepseek-v3", "2x8x910B2", backend="ascend", quantization="w8a8").to_dict()
    assert {one["node"] for one in plan["nodes"]} == {0, 1}
    for one in plan["nodes"]:
        assert {"HCCL_IF_IP", "HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} <= set(one["env"])


def test_mindies_config_says_what_was_planned() -> None:
    plan = memserve.plan.best("Qwen/Qwen3-8B", "2x910B2", backend="mindie", tensor_parallel=2, context=4096)
    config = json.loads(plan.command[-1])["BackendConfig"]
    (served,) = config["ModelDeployConfig"]["ModelConfig"]
    assert config["npuDeviceIds"] == [[0, 1]]
    assert (served["worldSize"], served["backendType"]) == (2, "atb")
    assert (served["modelWeightPath"], served["trustRemoteCode"]) == (plan.checkpoint.id, False)
    assert config["ModelDeployConfig"]["maxSeqLen"] == 4096
    assert config["ScheduleConfig"]["cacheBlockSize"] == 128
    assert config["ScheduleConfig"]["maxPrefillTokens"] >= 4096
    assert plan.env["NPU_MEMORY_FRACTION"] == "0.8"


def test_mindies_daemon_starts_with_the_plans_settings_in_its_own_file(tmp_path: Path) -> None:
    """The command is run as it stands, with a program in the daemon's place that shows what it would read."""
    plan = memserve.plan.best("Qwen/Qwen3-8B", "2x910B2", backend="mindie", context=4096)
    (tmp_path / "conf").mkdir()
    (tmp_path / "bin").mkdir()
    there = {"ServerConfig": {"port": 1025}, "BackendConfig": {"ModelDeployConfig": {
        "truncation": False, "ModelConfig": [{"cpuMemSize": 5, "worldSize": 8}]}}}  # fmt: skip
    (tmp_path / "conf" / "config.json").write_text(json.dumps(there))
    daemon = tmp_path / "bin" / "mindieservice_daemon"
    daemon.write_text("#!/bin/sh\ncat conf/config.json\n")
    daemon.chmod(0o755)
    words = [sys.executable, *plan.command[1:3], str(tmp_path), *plan.command[4:]]
    read = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)
    (served,) = read["BackendConfig"]["ModelDeployConfig"]["ModelConfig"]
    assert read["ServerConfig"] == {"port": 1025} and served["cpuMemSize"] == 5
    assert read["BackendConfig"]["ModelDeployConfig"]["truncation"] is False
    assert served["modelWeightPath"] == plan.checkpoint.id
    assert served["worldSize"] == plan.tensor_parallel


def test_mindie_is_not_opened_in_this_process() -> None:
    with pytest.raises(Unsupported, match="dialect='mindie'"):
        memserve.generator("some/model", backend="mindie")


def test_a_model_is_needed() -> None:
    with pytest.raises(InvalidInput, match="needs a model"):
        memserve.generator(None, backend="ascend")


@pytest.mark.parametrize(
    ("line", "meaning"),
    [("ImportError: libhccl.so: cannot open shared object file: No such file", "Ascend software"),
     ("RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB", "out of memory"),
     ("ModuleNotFoundError: No module named 'torch_npu'", "Ascend software"),
     ("EI0006: Getting socket times out. Reason: Remote Rank did not send the data in time.", "talk to each"),
     ("RuntimeError: HCCL function error: HcclGetRootInfo", "talk to each")],
)  # fmt: skip
def test_the_engines_last_words_are_understood(line: str, meaning: str) -> None:
    assert meaning in diagnose(f"INFO starting\n{line}\n").problem
