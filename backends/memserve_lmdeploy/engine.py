"""LMDeploy as a server process that memserve starts, watches and stops, driven over HTTP."""

from importlib.util import find_spec
from typing import Any

from memserve.engines.install import words
from memserve.errors import InvalidInput, Unsupported
from memserve.missing import missing
from memserve.protocol import Capabilities, Task

capabilities = Capabilities(
    backend="lmdeploy", chat=True, temperature=True, top_p=True, max_tokens=True, stop=True, usage=True,
    raw=True, top_k=True, min_p=True, seed=True, logprobs=5, schema=True, stream=True,
)  # fmt: skip


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = True,
                **options: Any) -> Any:  # fmt: skip
    """Start `lmdeploy serve api_server`; options are its flags, `python=` names another environment."""
    if model is None:
        raise InvalidInput("backend 'lmdeploy' needs a model: a folder or a hub id")
    if task != "generate":
        raise Unsupported("lmdeploy", f"task={task!r}")
    if not server:
        raise Unsupported("lmdeploy", "server=False", "its engine runs in a process of its own")
    if "python" not in options and find_spec("lmdeploy") is None:
        raise missing("lmdeploy", "lmdeploy")
    from memserve.serve.served import apart, open_served

    how, own = apart(options)
    flags = words({name.replace("_", "-"): value for name, value in own.items()})
    command = ["lmdeploy", "serve", "api_server", str(model), *flags]
    return open_served(command, str(model), task, "lmdeploy", **how)
