"""vLLM as a server process that memserve starts, watches and stops, in another environment if need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.serve import open_served
from memserve_vllm import adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.protocol import Task

_MINE = ("python", "timeout", "port")


def serve(model: str, task: Task, options: Mapping[str, Any], *, backend: str = "vllm",
          env: Mapping[str, str] | None = None) -> Any:  # fmt: skip
    """Start `vllm serve` with engine arguments as flags, and drive it over HTTP."""
    how = {"env": env or {}, **{name: options[name] for name in _MINE if name in options}}
    own = {name: value for name, value in options.items() if name not in _MINE}
    adapted = own.pop("adapter", None)
    if adapted:
        own = {**adapter.room(str(adapted)), **own, "lora_modules": f"{adapter.NAME}={adapted}"}
    command = ["vllm", "serve", model, *flags(own)]
    if task == "embed":
        command += ["--runner", "pooling", "--convert", "embed"]
    return open_served(command, adapter.NAME if adapted else model, task, backend, **how)


def flags(options: Mapping[str, Any]) -> list[str]:
    """Engine arguments as vLLM's command line spells them."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if str(value).lower() == "true":
            words.append(flag)
        elif str(value).lower() == "false":
            words.append("--no-" + flag.removeprefix("--"))
        elif value is not None:
            words += [flag, str(value)]
    return words
