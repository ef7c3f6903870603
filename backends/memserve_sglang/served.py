"""SGLang as a server process that memserve starts, watches and stops, in another environment if need be."""

from collections.abc import Mapping
from typing import Any

from memserve.engines.install import words
from memserve.protocol import Task
from memserve.serve.served import apart, open_served
from memserve_sglang.starting import ORIGINAL_LOGPROBS, SPELLINGS


def serve(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `sglang.launch_server` with server arguments as flags, and drive it over HTTP."""
    how, own = apart(options)
    how["env"] = {**ORIGINAL_LOGPROBS, **how.get("env", {})}
    if task == "embed":
        own["is_embedding"] = True
    flags = words({SPELLINGS.get(name, name).replace("_", "-"): value for name, value in own.items()})
    command = ["python", "-m", "sglang.launch_server", "--model-path", model, *flags]
    return open_served(command, model, task, "sglang", **how)
