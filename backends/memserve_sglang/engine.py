"""Opens a model with SGLang: in this process's children, or as a server that memserve starts and watches."""

from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.extras import need
from memserve.protocol import Task
from memserve_sglang.capabilities import capabilities

__all__ = ["capabilities", "open_engine"]


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are SGLang's own server arguments, as keywords or strings.

    `server=True` starts `sglang.launch_server` as a process of its own and drives it over HTTP; `python=`
    names the interpreter of another environment for it.
    """
    if model is None:
        raise InvalidInput("backend 'sglang' needs a model: a folder or a hub id")
    if server:
        from memserve_sglang.served import serve

        return serve(str(model), task, options)
    need("sglang", "sglang")
    if task == "generate":
        from memserve_sglang.offline import Offline

        return Offline.open(str(model), options)
    if task == "embed":
        from memserve_sglang.embedding import Embedding

        return Embedding.open(str(model), options)
    raise Unsupported("sglang", f"task={task!r}")
