"""A GGUF file found and loaded."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memserve.errors import DoesNotFit, EngineFailed, InvalidInput, MemserveError, ModelUnreadable
from memserve.extras import need
from memserve.hardware.machine import GIB
from memserve.model.spec import ModelSpec
from memserve.options import named, value

SPELLINGS = {"max_model_len": "n_ctx", "context": "n_ctx", "threads": "n_threads"}
REPOSITORY = "hf_model_repo_id"
"""llama_cpp.server's option for a repository on the hub; the model is then a pattern of its files."""
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
    found = sorted(path.glob(pattern))
    first = [file for file in found if "-of-" not in file.name or "-00001-of-" in file.name]
    if len(first) != 1:
        names = ", ".join(file.name for file in first) or "none"
        raise ModelUnreadable(f"{path} must hold one GGUF file, not: {names}", path=str(path))
    return first[0]


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
    own = {name: value for name, value in options.items() if name != REPOSITORY}
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
