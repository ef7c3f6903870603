"""Opens a model with vLLM: in this process, or as a server that memserve starts and watches."""

from collections.abc import Mapping
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
        return serve(str(model), task, options)
    need("vllm", "vllm")
    if task == "generate":
        from memserve_vllm.offline import Offline

        return Offline.open(str(model), options)
    if task in ("embed", "rerank"):
        from memserve_vllm.pooling import open_pooling

        return open_pooling(str(model), task, options)
    raise Unsupported("vllm", f"task={task!r}")


def serve(model: str, task: Task, options: Mapping[str, Any], *, backend: str = "vllm",
          env: Mapping[str, str] | None = None) -> Any:  # fmt: skip
    """Start `vllm serve` with engine arguments as flags, and drive it over HTTP."""
    from memserve.serve.served import apart, open_served
    from memserve_vllm import adapter

    how, own = apart(options)
    how["env"] = {**(env or {}), **how.get("env", {})}
    adapted = own.pop("adapter", None)
    if adapted:
        own = {**adapter.room(str(adapted)), **own, "lora_modules": f"{adapter.NAME}={adapted}"}
    if task == "embed":
        own = {"runner": "pooling", "convert": "embed", **own}
    return open_served(
        ["vllm", "serve", model, *flags(own)], adapter.NAME if adapted else model, task, backend, **how
    )


def flags(options: Mapping[str, Any]) -> list[str]:
    """Engine arguments as vLLM's command line spells them."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is False:
            words.append("--no-" + flag.removeprefix("--"))
        elif value is not None:
            words += [flag, str(value)]
    return words
