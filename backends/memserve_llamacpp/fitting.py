"""Refuses a file, or a context, that this machine's memory does not hold, before llama.cpp takes any."""

from pathlib import Path

from memserve.errors import DoesNotFit, InvalidInput, MemserveError
from memserve.hardware.machine import GIB
from memserve.model.spec import ModelSpec

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
    from memserve.memory.unmeasured import sequence_bytes, stage_caches

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
