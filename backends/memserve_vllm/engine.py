"""Opens a model with vLLM: in this process, or as a server that memserve starts and watches."""

from collections.abc import Mapping
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.missing import need
from memserve.protocol import Capabilities, Task

__all__ = ["capabilities", "open_engine"]
# At best, before a model is named; no engine is loaded for it.
capabilities = Capabilities(
    backend="vllm", tasks=frozenset({"generate", "embed", "rerank"}), chat=True, tools=True, temperature=True,
    top_p=True, max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True,
    seed=True, n=True, logprobs=20, score=True, schema=True, regex=True, choices=True, truncate=True,
    stream=True, images=True, returns_token_ids=True, deterministic=True, count_tokens=True, tokenizer=True,
    batches=True, cancel=True,
    roles=frozenset({"query", "document"}), normalize=True, dimensions=True,
    notes=("greedy answers repeat to the token in float32, or with VLLM_BATCH_INVARIANT=1 from sm_80 on",),
)  # fmt: skip


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                batch: bool = False, **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are vLLM's own engine arguments, as keywords or strings.

    `server=True` starts `vllm serve` as a process of its own and drives it over HTTP; `python=` names the
    interpreter of another environment for it. `batch=True` opens it for a run with `batch`, which
    `vllm run-batch` answers.
    """
    if model is None:
        raise InvalidInput("backend 'vllm' needs a model: a folder or a hub id")
    if batch and task == "generate":
        from memserve_vllm.batch import BatchOnly

        return BatchOnly(str(model), options)
    if server:
        return serve(str(model), task, options)
    need("vllm", "vllm")
    if task == "generate":
        from memserve_vllm.offline import Offline

        return Offline.open(str(model), options)
    if task in ("embed", "rerank"):
        from memserve_vllm.pooling import open_pooling

        return open_pooling(str(model), task, options)
    raise Unsupported("vllm", f"task={task!r}")


def serve(model: str, task: Task, options: Mapping[str, Any], *, backend: str = "vllm",
          env: Mapping[str, str] | None = None) -> Any:  # fmt: skip
    """Start `vllm serve` with engine arguments as flags, and drive it over HTTP."""
    from memserve.serve.served import open_served

    how, own, name = started(model, options)
    how["env"] = {**(env or {}), **how.get("env", {})}
    if task == "embed":
        own = {"runner": "pooling", "convert": "embed", **own}
    return open_served(["vllm", "serve", model, *flags(own)], name, task, backend, **how)


def started(model: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """How its process is started, its engine arguments, and the name to ask for."""
    from memserve.serve.served import apart
    from memserve_vllm import starting

    how, own = apart(options)
    adapted = own.pop("adapter", None)
    if not adapted:
        return how, own, model
    own = {**starting.limits(str(adapted)), **own, "lora_modules": f"{starting.NAME}={adapted}"}
    return how, own, starting.NAME


def flags(options: Mapping[str, Any]) -> list[str]:
    """Engine arguments as vLLM's command line spells them."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is False:
            words.append("--no-" + flag.removeprefix("--"))
        elif value is not None:
            words += [flag, str(value)]
    return words
