"""LMDeploy's own parser and TurboMind's config class accept every command that the planner emits for it.

The wheel is built for CUDA 12; its parser and config classes are Python and run without a card. The engine
itself does not, so nothing here says that it starts.
"""

from __future__ import annotations

import commands
import pytest
from released import released

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.slow]
BESIDE = ("mmengine-lite", "addict", "termcolor", "yapf", "platformdirs", "fire", "shortuuid", "peft")
POLICIES = {"auto": 0, "int4": 4, "int8": 8}
START = ("lmdeploy", "serve", "api_server", "m")
WRONG = ((*START, "--no-such-flag", "1"), (*START, "--dtype", "float17"), (*START, "--model-format", "nf4"))
"""Proof that the parser can refuse."""


def test_every_emitted_command_is_accepted_and_means_the_plan() -> None:
    plans = commands.plans("lmdeploy")
    assert len(plans) > 40
    path = released("lmdeploy", "0.18.0", *BESIDE)
    told, refused = commands.parsed("lmdeploy", plans, WRONG, path)
    assert len(refused) == len(WRONG)
    assert commands.refusals(plans, told) == []
    for plan, read in zip(plans, told, strict=True):
        assert read["model_path"] == plan.checkpoint.id
        layout = (plan.tensor_parallel, plan.data_parallel)
        assert (read["tp"], read["dp"], read["backend"]) == (*layout, "turbomind")
        assert (read["session_len"], read["dtype"]) == (plan.context, plan.dtype)
        assert read["quant_policy"] == POLICIES[plan.kv_dtype]
