"""llama.cpp's server as a process that memserve starts, watches and stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.serve import open_served
from memserve_llamacpp.loading import SPELLINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.protocol import Task

_MINE = ("python", "timeout", "port")


def serve(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `llama_cpp.server` with its own options as flags, and drive it over HTTP."""
    how = {name: options[name] for name in _MINE if name in options}
    command = ["python", "-m", "llama_cpp.server", "--model", model]
    for name, value in options.items():
        if name not in _MINE and value is not None:
            command += ["--" + SPELLINGS.get(name, name), str(value)]
    if task == "embed":
        command += ["--embedding", "true"]
    return open_served(command, model, task, "llamacpp", **how)
