"""LMDeploy as a server process that memserve starts, watches and stops, driven over HTTP."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput, Unsupported
from memserve.extras import missing
from memserve.protocol import Capabilities

if TYPE_CHECKING:
    from memserve.protocol import Task

capabilities = Capabilities(
    backend="lmdeploy", chat=True, temperature=True, top_p=True, max_tokens=True, stop=True, usage=True,
    raw=True, top_k=True, min_p=True, seed=True, logprobs=5, schema=True, stream=True,
)  # fmt: skip
_MINE = ("python", "timeout", "port")


def open_engine(model: str | None = None, *, task: Task = "generate", server: Any = True,
                **options: Any) -> Any:  # fmt: skip
    """Start `lmdeploy serve api_server`; options are its flags, `python=` names another environment."""
    if model is None:
        raise InvalidInput("backend 'lmdeploy' needs a model: a folder or a hub id")
    if task != "generate":
        raise Unsupported("lmdeploy", f"task={task!r}")
    if str(server).lower() not in ("true", "1", "yes"):
        raise Unsupported("lmdeploy", "server=False", "its engine runs in a process of its own")
    if "python" not in options and find_spec("lmdeploy") is None:
        raise missing("lmdeploy", "lmdeploy")
    from memserve.serve import open_served

    how = {name: options.pop(name) for name in _MINE if name in options}
    command = ["lmdeploy", "serve", "api_server", str(model)]
    for name, value in options.items():
        if value is not None:
            command += ["--" + name.replace("_", "-"), str(value)]
    return open_served(command, str(model), task, "lmdeploy", **how)
