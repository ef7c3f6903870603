"""Opens a model for one task."""

from collections.abc import Mapping
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.missing import need
from memserve.protocol import Task
from memserve_hf.options import AT_BEST, read

capabilities = AT_BEST
_TAKEN = ("dtype", "device", "quantization", "trust_remote_code", "context", "device_map")
"""It bounds no context, and spreads the layers over the cards by itself."""


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **given: Any) -> Any:  # fmt: skip
    """An engine for a task, from a folder or a hub id; options are `memserve_hf.options.Options`.

    `server=True` starts the plan's server as a process of its own; `python=` names its interpreter.
    """
    if model is None:
        raise InvalidInput("backend 'hf' needs a model: a folder or a hub id")
    if server:
        return _served(str(model), task, given)
    options = read(given)
    torch = need("hf", "torch")
    need("hf", "transformers")
    if options.threads:
        torch.set_num_threads(options.threads)
    if task == "generate":
        from memserve_hf.generating import generating

        return generating(str(model), options)
    if task == "embed":
        from memserve_hf.pooling import embedding

        return embedding(str(model), options)
    if task == "rerank":
        from memserve_hf.pooling import reranking

        return reranking(str(model), options)
    raise Unsupported("hf", f"task={task!r}")


def _served(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `transformers serve`, for other tasks memserve's endpoint, and drive it over HTTP."""
    from memserve.serve.served import apart, open_served
    from memserve_hf.launch import endpoint_command, serve_command

    how, own = apart(options)
    asked = read(own)
    if task != "generate":
        return open_served(endpoint_command(model, task, asked.said()), model, task, "hf", **how)
    lost = [name for name in asked.said() if name not in _TAKEN]
    if lost:
        raise Unsupported("hf", f"{lost[0]} with server=True")
    command = serve_command(model, quantization=asked.quantization, dtype=asked.dtype, device=asked.device,
                            trust=asked.trust_remote_code)  # fmt: skip
    return open_served(command, model, task, "hf", **how)
