"""vLLM-Ascend: vLLM's own engine on Huawei's cards, once what it needs is there."""

import os
from dataclasses import replace
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Task
from memserve_ascend import software
from memserve_ascend.launch import BLOCK, settings
from memserve_vllm import engine as vllm
from memserve_vllm.served import serve

capabilities = replace(vllm.capabilities, backend="ascend")


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are vLLM's engine arguments, or `server=True` and `python=`."""
    if model is None:
        raise InvalidInput("backend 'ascend' needs a model: a folder or a hub id")
    ranks = int(options.get("tensor_parallel_size") or 1) * int(options.get("pipeline_parallel_size") or 1)
    options.setdefault("block_size", BLOCK)
    if server:
        return serve(str(model), task, options, backend="ascend", env=settings(ranks))
    software.need()
    for name, value in settings(ranks).items():
        os.environ.setdefault(name, value)
    engine = vllm.open_engine(model, task=task, **options)
    engine.capabilities = replace(engine.capabilities, backend="ascend")
    return engine
