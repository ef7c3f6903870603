"""llama.cpp's server as a process that memserve starts, watches and stops."""

from collections.abc import Mapping
from typing import Any

from memserve.engines.install import words
from memserve.protocol import Task
from memserve.serve.served import apart, open_served
from memserve_llamacpp.loading import REPOSITORY, SPELLINGS, locate


def serve(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `llama_cpp.server`, or `llama-server` as planned, with its own options as flags; drive it."""
    how, own = apart(options)
    if "parallel" in own:
        own = own if "hf_repo" in own else {"model": model, **own}
        said = words({name.replace("_", "-"): word for name, word in own.items()})
        return open_served(("llama-server", *said), model, task, "llamacpp", **how)
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
