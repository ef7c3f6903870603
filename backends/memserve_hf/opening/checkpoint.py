"""What is known of a checkpoint before any of its weights is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
