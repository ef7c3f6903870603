"""transformers as a server process that memserve starts, watches and stops, driven over HTTP."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from memserve.errors import Unsupported
from memserve.protocol import Task
from memserve.serve.served import apart, open_served
from memserve_hf.launch import serve_command
from memserve_hf.options import Options, read

_TAKEN = ("dtype", "device", "quantization", "trust_remote_code", "context", "device_map")
"""It bounds no context, and spreads the layers over the cards by itself."""


def serve(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `transformers serve` and drive it over HTTP."""
    how, own = apart(options)
    asked = read(own)
    lost = [one.name for one in fields(Options)
            if one.name not in _TAKEN and getattr(asked, one.name) != one.default]  # fmt: skip
    if lost or task != "generate":
        raise Unsupported("hf", f"{lost[0] if lost else f'task={task!r}'} with server=True")
    command = serve_command(model, quantization=asked.quantization, dtype=asked.dtype, device=asked.device,
                            trust=asked.trust_remote_code)  # fmt: skip
    return open_served(command, model, task, "hf", **how)
