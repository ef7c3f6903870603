"""Opens a GGUF file with llama.cpp: in this process, or as a server that memserve starts and watches."""

from collections.abc import Mapping
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.extras import need
from memserve.protocol import Task
from memserve_llamacpp.capabilities import capabilities

__all__ = ["capabilities", "open_engine"]


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are those of `llama_cpp.Llama`, as keywords or strings.

    `server=True` starts `llama_cpp.server` as a process of its own and drives it over HTTP; `python=` names
    the interpreter of another environment for it.
    """
    if model is None:
        raise InvalidInput("backend 'llamacpp' needs a model: a .gguf file, or a folder that holds one")
    from memserve_llamacpp.loading import alone, load

    if server:
        return _served(str(model), task, options)
    need("llamacpp", "llama_cpp", "llama-cpp-python")
    level = str(options.get("hf_repo", "")).partition(":")[2]
    model, options = f"*{level}*.gguf" if level else model, alone(options)
    if task == "generate":
        from memserve_llamacpp.generating import Generating

        return Generating(load(str(model), options), str(model))
    if task == "embed":
        from memserve_llamacpp.embedding import Embedding

        return Embedding(load(str(model), options, embedding=True), str(model))
    raise Unsupported("llamacpp", f"task={task!r}")


def _served(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `llama_cpp.server`, or `llama-server` as planned, with its own options as flags; drive it."""
    from memserve.engines.install import words
    from memserve.serve.served import apart, open_served
    from memserve_llamacpp.loading import REPOSITORY, SPELLINGS, locate

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
