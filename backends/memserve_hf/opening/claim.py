"""What config.json claims, held against the weights beside it before any of them is loaded."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve.errors import MemserveError, ModelUnreadable
from memserve.extras import need
from memserve.model.spec import ModelSpec


@dataclass(frozen=True)
class Checkpoint:
    """One folder that was looked through: its config, and the bytes of its weights by dtype."""

    folder: Path
    name: str
    config: dict[str, Any]
    stored: dict[str, int]
    """Bytes of the stored tensors by safetensors dtype (BF16, F32, I32, ...); empty for pickles."""

    @property
    def dtype(self) -> str | None:
        """The dtype that the config names, of the text part where there are several."""
        text = self.config.get("text_config") or {}
        named = (part.get(key) for part in (self.config, text) for key in ("dtype", "torch_dtype"))
        return next((str(dtype) for dtype in named if dtype), None)

    @property
    def bytes(self) -> int:
        """All weights as stored."""
        return sum(self.stored.values())


FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MOST = 3
"""Parameters claimed for each one stored: tied weights may be claimed twice, a head may be left out."""
log = logging.getLogger("memserve.hf")


def prove(found: Checkpoint) -> None:
    """Refuse a config that lacks what makes a model, or tells of a far larger one than the files hold.

    transformers fills what is absent with its own defaults and what is not stored with random numbers, at
    full size: a config of another model would take all memory before anybody said so.
    """
    _known_dtype(found)
    spec, stored = _described(found), _stored(found)
    if spec is not None and stored and spec.parameters > MOST * stored:
        raise ModelUnreadable(
            f"{found.folder / 'config.json'} describes {spec.parameters:,} parameters, the weights beside it "
            f"are {stored:,}: they do not belong together",
            path=str(found.folder / "config.json"), field="hidden_size",
        )  # fmt: skip


def _known_dtype(found: Checkpoint) -> None:
    torch = need("hf", "torch")
    name = (found.dtype or "auto").removeprefix("torch.")
    if name != "auto" and not isinstance(getattr(torch, name, None), torch.dtype):
        path = str(found.folder / "config.json")
        raise ModelUnreadable(f"{path}: dtype {name!r} is none that torch knows", path=path, field="dtype")


def _described(found: Checkpoint) -> ModelSpec | None:
    """The model as memserve reads it; None for a family that only transformers, or its own code, knows."""
    from memserve.model import load

    try:
        spec = load(str(found.folder))
        return spec if spec.exact else None
    except ModelUnreadable as error:
        if error.field and "auto_map" not in found.config:
            raise
        log.debug("%s is left to transformers: %s", found.name, error)
    except MemserveError as error:
        log.debug("%s is left to transformers: %s", found.name, error)
    return None


def _stored(found: Checkpoint) -> int:
    """Numbers in the weight files; 0 where they are packed, quantized or pickled, and so say nothing."""
    if found.config.get("quantization_config") or not FLOATS.keys() >= found.stored.keys():
        return 0
    return sum(size // FLOATS[dtype] for dtype, size in found.stored.items())
