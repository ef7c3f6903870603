"""Opens a model with SGLang: in this process's children, or as a server that memserve starts and watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memserve.errors import Closed, InvalidInput, Unsupported
from memserve.missing import need
from memserve.protocol import Capabilities, Embeddings, Task, Usage
from memserve_sglang.host import Host

__all__ = ["capabilities", "open_engine"]
# At best, before a model is named; no engine is loaded for it.
capabilities = Capabilities(
    backend="sglang", tasks=frozenset({"generate", "embed"}), chat=True, tools=True, temperature=True,
    top_p=True,
    max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True, seed=True,
    n=True, logprobs=20, score=True, schema=True, regex=True, choices=True, truncate=True, stream=True,
    returns_token_ids=True, deterministic=True, count_tokens=True, tokenizer=True, batches=True, cancel=True,
    normalize=True, dimensions=True, roles=frozenset({"query", "document"}),
    notes=("a seed is honoured with enable_deterministic_inference=True only",),
)  # fmt: skip


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are SGLang's own server arguments, as keywords or strings.

    `server=True` starts `sglang.launch_server` as a process of its own and drives it over HTTP; `python=`
    names the interpreter of another environment for it.
    """
    if model is None:
        raise InvalidInput("backend 'sglang' needs a model: a folder or a hub id")
    if server:
        return _served(str(model), task, options)
    need("sglang", "sglang")
    if task == "generate":
        from memserve_sglang.offline import Offline

        return Offline.open(str(model), options)
    if task == "embed":
        return Embedding.open(str(model), options)
    raise Unsupported("sglang", f"task={task!r}")


def _served(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `sglang.launch_server` with server arguments as flags, and drive it over HTTP."""
    from memserve.engines.install import words
    from memserve.serve.served import apart, open_served
    from memserve_sglang.host import ORIGINAL_LOGPROBS, SPELLINGS

    how, own = apart(options)
    how["env"] = {**ORIGINAL_LOGPROBS, **how.get("env", {})}
    if task == "embed":
        own["is_embedding"] = True
    flags = words({SPELLINGS.get(name, name).replace("_", "-"): value for name, value in own.items()})
    command = ["python", "-m", "sglang.launch_server", "--model-path", model, *flags]
    return open_served(command, model, task, "sglang", **how)


class Embedding:
    """SGLang normalizes what it pools, so bare vectors are not to be had."""

    def __init__(self, host: Host, model: str) -> None:
        self._host: Host | None = host
        engine = f"sglang {host.facts['version']}"
        self.identity = {"model": model, "engine": engine, "dtype": host.facts["dtype"]}
        self.capabilities = replace(
            capabilities, engine=engine, model=model, device=host.facts["device"], tasks=frozenset({"embed"}),
            chat=False, score=False, stream=False, roles=frozenset(), normalize=False,
        )  # fmt: skip

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Embedding:
        """Start SGLang as an embedding engine."""
        return cls(Host(model, {**options, "is_embedding": True}), model)

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One float32 row a text; a cut row is normalized again."""
        import numpy as np

        if self._host is None:
            raise Closed("this engine is closed")
        outputs = self._host.call("encode", texts=list(texts))
        vectors = np.array([one["embedding"] for one in outputs], dtype=np.float32)
        if dimensions is not None and dimensions > vectors.shape[1]:
            raise InvalidInput(f"dimensions={dimensions}: this model has {vectors.shape[1]}")
        if dimensions is not None:
            vectors = vectors[:, :dimensions]
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        used = sum(one["meta_info"]["prompt_tokens"] for one in outputs)
        return Embeddings(vectors, Usage(prompt_tokens=used), self.capabilities.model)

    def close(self) -> None:
        """End the child processes."""
        host, self._host = self._host, None
        if host is not None:
            host.close()
