"""Opens a model with vLLM: in this process, or as a server that memserve starts and watches."""

from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.extras import need
from memserve.protocol import Task
from memserve_vllm.capabilities import capabilities

__all__ = ["capabilities", "open_engine"]


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are vLLM's own engine arguments, as keywords or strings.

    `server=True` starts `vllm serve` as a process of its own and drives it over HTTP; `python=` names the
    interpreter of another environment for it.
    """
    if model is None:
        raise InvalidInput("backend 'vllm' needs a model: a folder or a hub id")
    if server:
        from memserve_vllm.served import serve

        return serve(str(model), task, options)
    need("vllm", "vllm")
    if task == "generate":
        from memserve_vllm.offline import Offline

        return Offline.open(str(model), options)
    if task in ("embed", "rerank"):
        from memserve_vllm.pooling import open_pooling

        return open_pooling(str(model), task, options)
    raise Unsupported("vllm", f"task={task!r}")
