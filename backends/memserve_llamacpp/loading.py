"""A GGUF file found and loaded."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memserve.errors import EngineFailed, InvalidInput, ModelUnreadable
from memserve.extras import need
from memserve.options import named, value
from memserve_llamacpp.fitting import refuse_too_large

SPELLINGS = {"max_model_len": "n_ctx", "context": "n_ctx", "threads": "n_threads"}
REPOSITORY = "hf_model_repo_id"
"""llama_cpp.server's option for a repository on the hub; the model is then a pattern of its files."""
WHOLE_MODEL = -1
"""llama.cpp's words for: every layer on the card, where the build has one."""


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
