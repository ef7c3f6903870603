"""vLLM as a server process that memserve starts, watches and stops, in another environment if need be."""

from collections.abc import Mapping
from typing import Any

from memserve.protocol import Task
from memserve.serve.served import apart, open_served
from memserve_vllm import adapter


def serve(model: str, task: Task, options: Mapping[str, Any], *, backend: str = "vllm",
          env: Mapping[str, str] | None = None) -> Any:  # fmt: skip
    """Start `vllm serve` with engine arguments as flags, and drive it over HTTP."""
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
