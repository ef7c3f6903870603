"""Opens a GGUF file with llama.cpp: in this process, or as a server that memserve starts and watches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.extras import need
from memserve.protocol import Capabilities, Embeddings, Task, Usage

__all__ = ["capabilities", "open_engine"]
# At best, before a model is named; no engine is loaded for it.
capabilities = Capabilities(
    backend="llamacpp", tasks=frozenset({"generate", "embed"}), chat=True, temperature=True, top_p=True,
    max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True, seed=True,
    n=True, logprobs=20, score=True, schema=True, choices=True, truncate=True, stream=True,
    returns_token_ids=True, deterministic=True, count_tokens=True, tokenizer=True, cancel=True,
    normalize=True, dimensions=True, roles=frozenset({"query", "document"}),
    notes=("one sequence at a time: the longest prefix that two prompts share is computed once",),
)  # fmt: skip


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


class Embedding:
    """Pooled vectors; a GGUF file carries no prompts for roles, so there are none."""

    def __init__(self, llama: Any, model: str) -> None:
        import llama_cpp

        self._llama = llama
        self.identity = {"model": model, "engine": f"llama-cpp-python {llama_cpp.__version__}"}
        self.capabilities = replace(
            capabilities, engine=f"llama-cpp-python {llama_cpp.__version__}", model=model,
            tasks=frozenset({"embed"}), chat=False, score=False, stream=False, context=llama.n_ctx(),
        )  # fmt: skip

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One float32 row a text."""
        import numpy as np

        rows, used = self._llama.embed(list(texts), normalize=False, return_count=True)
        vectors = np.array(rows, dtype=np.float32)
        if vectors.ndim != 2:
            raise InvalidInput(
                "this GGUF model does not pool", hint="pass pooling_type=1 (mean), 2 (cls) or 3 (last)"
            )
        if dimensions is not None and dimensions > vectors.shape[1]:
            raise InvalidInput(f"dimensions={dimensions}: this model has {vectors.shape[1]}")
        vectors = vectors[:, :dimensions]
        if normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embeddings(vectors, Usage(prompt_tokens=int(used)), self.capabilities.model)

    def close(self) -> None:
        """Free the model."""
        llama, self._llama = self._llama, None
        if llama is not None:
            llama.close()
