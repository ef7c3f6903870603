"""Opens a GGUF file with llama.cpp: in this process, or as a server that memserve starts and watches."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memserve.errors import (
    DoesNotFit,
    EngineFailed,
    InvalidInput,
    MemserveError,
    ModelUnreadable,
    Unsupported,
)
from memserve.hardware.machine import GIB
from memserve.missing import need
from memserve.model.spec import ModelSpec
from memserve.options import named, value
from memserve.protocol import Capabilities, Embeddings, Task, Usage

__all__ = ["capabilities", "open_engine"]


SPELLINGS = {"max_model_len": "n_ctx", "context": "n_ctx", "threads": "n_threads"}
REPOSITORY = "hf_model_repo_id"
"""llama_cpp.server's option for a repository on the hub; the model is then a pattern of its files."""
SERVERS = {REPOSITORY, "interrupt_requests"}
"""What a plan's command says to llama_cpp.server alone: in this process no request cuts off another."""
WHOLE_MODEL = -1
"""llama.cpp's words for: every layer on the card, where the build has one."""


def alone(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan says to `llama-server`, for this process, which answers one request at a time."""
    own = dict(options)
    slots, repository = int(own.pop("parallel", 1)), own.pop("hf_repo", None)
    own.pop("embeddings", None)
    if "ctx_size" in own:
        own["n_ctx"] = int(own.pop("ctx_size")) // slots
    if repository:
        own[REPOSITORY] = repository.partition(":")[0]
    return own


def pattern(level: str) -> str:
    """A repository's file of a level, whole or in parts, in whatever case it is written."""
    letters = (f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in level)
    return f"*{''.join(letters)}[-.]*gguf"


def locate(model: str, repository: str | None = None) -> Path:
    """The file itself; a folder must hold exactly one (the first of a split counts)."""
    if repository:
        hub = need("llamacpp", "huggingface_hub")
        return _only(Path(hub.snapshot_download(repository, allow_patterns=[model])), model)
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelUnreadable(f"no file or folder {model}", path=model)
    return _only(path, "*.gguf")


def _only(path: Path, pattern: str) -> Path:
    found = sorted(file for file in path.glob(pattern) if "mmproj" not in file.name)
    first = [file for file in found if "-of-" not in file.name or "-00001-of-" in file.name]
    if len(first) != 1:
        names = ", ".join(file.name for file in first) or "none"
        raise ModelUnreadable(f"{path} must hold one GGUF file, not: {names}", path=str(path))
    return first[0]


def _eyes(model: str, options: dict[str, Any]) -> Path | None:
    """The projector of a model that sees pictures: `mmproj=FILE`, or the one in the model's folder."""
    named, folder = options.pop("mmproj", None), Path(model).expanduser()
    if named is not None:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ModelUnreadable(f"no file {path}", path=str(path))
        return path
    found = sorted(folder.glob("*mmproj*.gguf")) if folder.is_dir() and not options.get(REPOSITORY) else []
    if len(found) > 1:
        raise InvalidInput(f"{folder} holds several projectors", hint=f"name one: mmproj={found[0]}")
    return next(iter(found), None)


def load(model: str, options: Mapping[str, Any], **more: Any) -> Any:
    """A `llama_cpp.Llama` with the model's own context unless told otherwise."""
    path = locate(model, options.get(REPOSITORY))
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelUnreadable(f"{path} is not a GGUF file", path=str(path), field="magic")
    import llama_cpp

    asked = {"n_ctx": 0, "n_gpu_layers": WHOLE_MODEL, **_arguments(llama_cpp.Llama, options), **more}
    if not llama_cpp.llama_supports_gpu_offload():
        refuse_too_large(path, asked["n_ctx"])
    try:
        return _adapted(llama_cpp.Llama(model_path=str(path), verbose=False, **asked))
    except TypeError as error:
        raise InvalidInput(f"llama.cpp does not take these options: {error}") from error
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ModelUnreadable(f"llama.cpp cannot load {path}: {error}", path=str(path)) from error
    except MemoryError as error:
        raise EngineFailed(f"out of memory while loading {path}") from error


def _adapted(llama: Any) -> Any:
    """The model, once its LoRA adapter is proven to be there: a null pointer in its place crashes later."""
    if llama.lora_path and not llama._lora_adapter:
        llama._lora_adapter = None
        llama.close()
        raise ModelUnreadable(
            f"the adapter {llama.lora_path} cannot be read, or does not belong to {llama.model_path}",
            path=llama.lora_path, field="lora_path",
        )  # fmt: skip
    return llama


def _arguments(loader: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    known = set(inspect.signature(loader.__init__).parameters) - {"self", "kwargs", "model_path", "verbose"}
    own = {name: word for name, word in options.items() if name not in SERVERS}
    found = named("llamacpp", own, known, spellings=SPELLINGS)
    return {name: value(word) for name, word in found.items()}


HALF = 2
"""Bytes of one number in the KV cache, as llama.cpp keeps it unless told otherwise."""


def refuse_too_large(path: Path, context: int) -> None:
    """Raise `DoesNotFit` where weights and the cache of `context` tokens (0: all) exceed the free RAM.

    llama.cpp sets the whole cache aside at the start; the system kills what it cannot hold without a word.
    """
    from memserve.hardware.detection.host import available

    if not isinstance(context, int) or context < 0:
        raise InvalidInput(f"option n_ctx={context!r} is not a whole number from 0")
    free, spec = available(), _described(path)
    if free is None:
        return
    weights = sum(file.stat().st_size for file in _parts(path))
    each = _token_bytes(spec) if spec else 0
    tokens = context or (spec.max_context if spec else None) or 0
    needed = weights + tokens * each
    if needed <= free:
        return
    raise DoesNotFit(
        f"{path} needs {weights / GIB:.1f} GiB for its weights and {tokens * each / GIB:.1f} GiB for the "
        f"cache of {tokens:,} tokens; {free / GIB:.1f} GiB are free",
        hint=_advice(path, (free - weights) // each if each else 0),
    )


def _described(path: Path) -> ModelSpec | None:
    """The file as memserve reads it; None leaves the judgement to llama.cpp."""
    from memserve.model import load

    try:
        return load(str(path))
    except MemserveError:
        return None


def _token_bytes(spec: ModelSpec) -> int:
    from memserve.memory.kv import sequence_bytes, stage_caches

    return sequence_bytes(stage_caches(spec, 1, 1, HALF)[0], 1)


def _parts(path: Path) -> list[Path]:
    """All files of a split model."""
    if "-00001-of-" not in path.name:
        return [path]
    return sorted(path.parent.glob(path.name.replace("-00001-of-", "-?????-of-")))


def _advice(path: Path, tokens: int) -> str:
    if tokens >= 1:
        return f"n_ctx={tokens // 256 * 256 or tokens} fits here"
    return f"find a machine: python -m memserve.plan {path} --backend llamacpp --gpus any"


# At best, before a model is named; no engine is loaded for it.
capabilities = Capabilities(
    backend="llamacpp", tasks=frozenset({"generate", "embed"}), chat=True, tools=True, temperature=True,
    top_p=True,
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

    if server:
        return _served(str(model), task, options)
    need("llamacpp", "llama_cpp", "llama-cpp-python")
    level = str(options.get("hf_repo", "")).partition(":")[2]
    model, options = pattern(level) if level else model, alone(options)
    if task == "generate":
        from memserve_llamacpp.generating import Generating

        eyes = _eyes(str(model), options)
        llama = load(str(model), options)
        if eyes is None:
            return Generating(llama, str(model))
        from memserve_llamacpp.sight import Reader

        try:
            return Generating(llama, str(model), Reader(eyes, llama))
        except MemserveError:
            llama.close()
            raise
    if task == "embed":
        return Embedding(load(str(model), options, embedding=True), str(model))
    raise Unsupported("llamacpp", f"task={task!r}")


def _served(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start `llama_cpp.server`, or `llama-server` as planned, with its own options as flags; drive it."""
    from memserve.engines.install import words
    from memserve.serve.served import apart, open_served

    how, own = apart(options)
    if "parallel" in own:
        own = own if "hf_repo" in own else {"model": model, **own}
        said = words({name.replace("_", "-"): word for name, word in own.items()})
        return open_served(("llama-server", *said), model, task, "llamacpp", **how)
    repository = own.pop(REPOSITORY, None)
    place = {REPOSITORY: repository, "model": model} if repository else {"model": str(locate(model))}
    flags = {**place, **{SPELLINGS.get(name, name): word for name, word in own.items()}}
    if task == "embed":
        flags["embedding"] = True
    command = ["python", "-m", "llama_cpp.server"]
    for name, word in flags.items():
        if word is not None:
            command += [f"--{name}", str(word).lower() if isinstance(word, bool) else str(word)]
    return open_served(command, model, task, "llamacpp", **how)


class Embedding:
    """Pooled vectors; a GGUF file carries no prompts for roles, so there are none."""

    def __init__(self, llama: Any, model: str) -> None:
        import llama_cpp

        self._llama = llama
        self.identity = {"model": model, "engine": f"llama-cpp-python {llama_cpp.__version__}"}
        self.capabilities = replace(
            capabilities, engine=f"llama-cpp-python {llama_cpp.__version__}", model=model,
            tasks=frozenset({"embed"}), chat=False, tools=False, score=False, stream=False,
            context=llama.n_ctx(),
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
