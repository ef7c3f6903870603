"""SGLang as a server process that memserve starts, watches and stops, in another environment if need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.serve import open_served
from memserve_sglang.starting import ORIGINAL_LOGPROBS, SPELLINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.protocol import Task

_MINE = ("python", "timeout", "port")


def serve(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `sglang.launch_server` with server arguments as flags, and drive it over HTTP."""
    how = {name: options[name] for name in _MINE if name in options}
    command = ["python", "-m", "sglang.launch_server", "--model-path", model]
    for name, value in options.items():
        if name in _MINE or value is None or str(value).lower() == "false":
            continue
        command.append("--" + SPELLINGS.get(name, name).replace("_", "-"))
        if str(value).lower() != "true":
            command.append(str(value))
    if task == "embed":
        command.append("--is-embedding")
    return open_served(command, model, task, "sglang", env=ORIGINAL_LOGPROBS, **how)
