"""llama.cpp's server as a process that memserve starts, watches and stops."""

from collections.abc import Mapping
from typing import Any

from memserve.protocol import Task
from memserve.serve.served import apart, open_served
from memserve_llamacpp.loading import REPOSITORY, SPELLINGS, locate


def serve(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `llama_cpp.server` with its own options as flags, and drive it over HTTP."""
    how, own = apart(options)
    repository = own.pop(REPOSITORY, None)
    place = {REPOSITORY: repository, "model": model} if repository else {"model": str(locate(model))}
    flags = {**place, **{SPELLINGS.get(name, name): value for name, value in own.items()}}
    if task == "embed":
        flags["embedding"] = True
    command = ["python", "-m", "llama_cpp.server"]
    for name, value in flags.items():
        if value is not None:
            command += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return open_served(command, model, task, "llamacpp", **how)
