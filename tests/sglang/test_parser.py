"""SGLang's own parser accepts every command that the planner emits for it.

0.5.23 is the installed release; 0.5.1.post2 (the last for compute capability 7.5) lends its Python files.
"""

from __future__ import annotations

import commands
import pytest
from released import released

pytestmark = [pytest.mark.engine("sglang"), pytest.mark.slow]
START = ("python", "-m", "sglang.launch_server", "--model-path", "m")
WRONG = (
    (*START, "--no-such-flag", "1"),
    (*START, "--kv-cache-dtype", "fp9"),
    (*START, "--quantization", "x"),
)
"""Proof that the parser can refuse."""


@pytest.mark.parametrize("version", ["0.5.23", "0.5.1.post2"])
def test_every_emitted_command_is_accepted_and_means_the_plan(version: str) -> None:
    path = None if version == "0.5.23" else released("sglang", version)
    plans = [plan for plan in commands.plans("sglang", version) if plan.engine_version == version]
    assert len(plans) > 40
    told, refused = commands.parsed("sglang", plans, WRONG, path)
    assert len(refused) == len(WRONG)
    assert commands.refusals(plans, told) == []
    for plan, read in zip(plans, told, strict=True):
        assert read["model_path"] == plan.checkpoint.id
        assert read["tp_size"] == plan.tensor_parallel
        assert (read["pp_size"], read["dp_size"]) == (plan.pipeline_parallel, plan.data_parallel)
        assert (read["context_length"], read["dtype"]) == (plan.context, plan.dtype)
