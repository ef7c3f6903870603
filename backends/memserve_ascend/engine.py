"""vLLM-Ascend: vLLM's own engine on Huawei's cards, once what it needs is there."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from memserve.errors import BackendMissing
from memserve_vllm import engine as vllm

if TYPE_CHECKING:
    from memserve.protocol import Task

INSTALL = 'pip install "memserve[ascend]"'
NEEDED = {
    "torch_npu": "torch_npu (and under it the driver and CANN: source set_env.sh)",
    "vllm_ascend": "vllm-ascend",
}
capabilities = replace(vllm.capabilities, backend="ascend")


def open_engine(model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
    """An engine for one task; options are vLLM's engine arguments, or `server=True` and `python=`."""
    if str(options.get("server", False)).lower() not in ("true", "1", "yes"):
        need()
    engine = vllm.open_engine(model, task=task, **options)
    if hasattr(engine, "identity"):
        engine.capabilities = replace(engine.capabilities, backend="ascend")
    return engine


def need() -> None:
    """Name the first thing that is missing, the lowest first."""
    for module, words in NEEDED.items():
        if find_spec(module) is None:
            raise BackendMissing("ascend", needs=words, install=INSTALL)
