"""Starts `sglang.Engine`: arguments checked against the installed release, failures in plain words."""

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from memserve.errors import EngineFailed, InvalidInput, MemserveError, ModelUnreadable
from memserve.options import named, value

SPELLINGS = {"max_model_len": "context_length", "tensor_parallel_size": "tp_size"}
ORIGINAL_LOGPROBS = {"SGLANG_RETURN_ORIGINAL_LOGPROB": "1"}
"""Log-probabilities are the model's own, whatever the temperature."""


def arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Server arguments of the installed SGLang from keywords or strings; unknown names are refused."""
    from sglang.srt.server_args import ServerArgs

    known = set(signature(ServerArgs).parameters)  # a dataclass before 0.5.20, a msgspec struct since
    found = named("sglang", options, known, spellings=SPELLINGS)
    return {name: value(word) for name, word in found.items()}


def start(model: str, options: Mapping[str, Any], **more: Any) -> Any:
    """A running `sglang.Engine`."""
    path = Path(model)
    if path.is_absolute() and not (path / "config.json").exists():
        raise ModelUnreadable(f"{model} has no config.json", path=str(path / "config.json"))
    asked = {"log_level": "error", **more, **arguments(options)}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name, text in ORIGINAL_LOGPROBS.items():
        os.environ.setdefault(name, text)
    import sglang

    try:
        return sglang.Engine(model_path=model, **asked)
    except (ValueError, OSError, RuntimeError, TypeError, AssertionError, ImportError) as error:
        raise _plain(error, model) from error


def _plain(error: Exception, model: str) -> MemserveError:
    words = str(error).strip() or type(error).__name__
    first = next((line for line in words.splitlines() if line.strip()), words)[:400]
    if isinstance(error, TypeError):
        return InvalidInput(f"SGLang refuses its options: {first}")
    return EngineFailed(f"SGLang did not start with {model}: {first}")
