"""The parsers of the released CUDA wheels accept every command that the planner emits for them.

Wheels: 0.33.0 (newest), 0.19.1 (V100), 0.23.0 (under vLLM-Ascend); their Python files, with the kernels of
the build for CPUs. What a parser cannot judge (kernels, memory, whether a checkpoint is there) is not proven.
"""

from __future__ import annotations

import commands
import pytest
from released import released

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.slow]
WHEELS = [("vllm", "0.33.0", None), ("vllm", "0.19.1", "0.19.1"), ("ascend", "0.23.0", None)]
START = ("vllm", "serve", "m")
WRONG = ((*START, "--no-such-flag", "1"), (*START, "--dtype", "float17"), (*START, "--max-model-len", "much"))
"""Proof that the parser can refuse."""


@pytest.mark.parametrize(("backend", "version", "asked"), WHEELS)
def test_every_emitted_command_is_accepted_and_means_the_plan(
    backend: str, version: str, asked: str | None
) -> None:
    found = commands.plans(backend, asked)
    plans = [plan for plan in found if backend == "ascend" or plan.engine_version == version]
    assert len(plans) > 40
    path = released("vllm", version, "gguf==0.18.0")
    told, refused = commands.parsed("vllm", plans, WRONG, path)
    assert len(refused) == len(WRONG)
    assert commands.refusals(plans, told) == []
    for plan, read in zip(plans, told, strict=True):
        assert read["model"] == plan.checkpoint.id
        assert read["tensor_parallel_size"] == plan.tensor_parallel
        assert read["pipeline_parallel_size"] == plan.pipeline_parallel
        assert read["data_parallel_size"] == plan.data_parallel
        assert (read["max_model_len"], read["dtype"]) == (plan.context, plan.dtype)
        assert read["kv_cache_dtype"] == plan.kv_dtype
