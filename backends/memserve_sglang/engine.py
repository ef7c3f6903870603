"""Opens a model with SGLang: in this process's children, or as a server that memserve starts and watches."""

from collections.abc import Mapping
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
        return _served(str(model), task, options)
    need("sglang", "sglang")
    if task == "generate":
        from memserve_sglang.offline import Offline

        return Offline.open(str(model), options)
    if task == "embed":
        from memserve_sglang.embedding import Embedding

        return Embedding.open(str(model), options)
    raise Unsupported("sglang", f"task={task!r}")


def _served(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `sglang.launch_server` with server arguments as flags, and drive it over HTTP."""
    from memserve.engines.install import words
    from memserve.serve.served import apart, open_served
    from memserve_sglang.starting import ORIGINAL_LOGPROBS, SPELLINGS

    how, own = apart(options)
    how["env"] = {**ORIGINAL_LOGPROBS, **how.get("env", {})}
    if task == "embed":
        own["is_embedding"] = True
    flags = words({SPELLINGS.get(name, name).replace("_", "-"): value for name, value in own.items()})
    command = ["python", "-m", "sglang.launch_server", "--model-path", model, *flags]
    return open_served(command, model, task, "sglang", **how)
