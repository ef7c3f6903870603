"""The planner's commands over a matrix, and what an engine's own parser makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memserve
from memserve.errors import DoesNotFit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.plan import Plan

MODELS = (
    "llama-8b", "llama-70b", "Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B-Instruct-2507", "deepseek-v3",
    "gemma-3-27b", "openai/gpt-oss-20b", "THUDM/glm-4-9b-chat", "BAAI/bge-large-en-v1.5",
    "Qwen/Qwen3-Embedding-0.6B",
)  # fmt: skip
NVIDIA = ("1xT4", "4xV100", "1xL4", "1xRTX4090", "4xA100", "8xH100", "2x8xH100", "8xB200", "8xMI300X")
ASCEND = ("1x310P", "1x910B4", "8x910B4", "2x8x910B2", "8xA3")
WISHES: tuple[dict[str, Any], ...] = (
    {}, {"kv_dtype": "fp8"}, {"quantization": "w8a8"}, {"quantization": "nf4"}, {"quantization": "gptq"},
    {"quantization": "awq"}, {"quantization": "fp8"}, {"concurrency": 64, "context": 4096},
    {"data_parallel": 2}, {"pipeline_parallel": 2},
)  # fmt: skip


@cache
def plans(backend: str, version: str | None = None) -> tuple[Plan, ...]:
    """Every plan that there is for one engine over the matrix."""
    machines = ASCEND if backend == "ascend" else NVIDIA
    asked = {"backend": backend, "engine_version": version}
    found = (
        _plan(model, gpus, **asked, **wishes) for model, gpus, wishes in product(MODELS, machines, WISHES)
    )
    return tuple(plan for plan in found if plan is not None)


def _plan(model: str, gpus: str, **wishes: Any) -> Plan | None:
    try:
        return memserve.plan.best(model, gpus, **wishes)
    except DoesNotFit:
        return None


def parsed(
    engine: str, plans: Sequence[Plan], wrong: Sequence[Sequence[str]], path: Path | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """What the parser makes of the plans' commands, and its words for the wrong ones that it refused.

    `path` holds another release's Python files.
    """
    world = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "CUDA_VISIBLE_DEVICES": ""}
    if path is not None:
        world["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))
    script = Path(__file__).with_name("parse_commands.py")
    asked = json.dumps([*(list(plan.command) for plan in plans), *map(list, wrong)])
    done = subprocess.run([sys.executable, "-W", "ignore", str(script), engine], input=asked, text=True,
                          capture_output=True, env=world, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    return told[: len(plans)], [one["refused"] for one in told[len(plans) :] if "refused" in one]


def refusals(plans: Sequence[Plan], told: Sequence[dict[str, Any]]) -> list[str]:
    """The commands that the parser refused, with its words."""
    pairs = zip(plans, told, strict=True)
    return [f"{' '.join(plan.command)}: {read['refused']}" for plan, read in pairs if "refused" in read]
