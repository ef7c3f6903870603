"""A LoRA adapter beside the model: its rank is read first, because vLLM sets room aside for one."""

import json
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput

NAME = "adapter"
"""What the adapter is called, in vLLM and as a model of its server."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that `max_lora_rank` may be (vllm 0.19.1 to 0.33.0 vllm/config/lora.py)."""


def limits(path: str) -> dict[str, Any]:
    """The engine arguments that one adapter of that rank needs."""
    rank = _rank(path)
    held = next((one for one in RANKS if one >= max(rank, 8)), None)
    if held is None:
        raise InvalidInput(f"adapter {path} has rank {rank}; vLLM takes up to {RANKS[-1]}")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": held}


def request(path: str | None) -> Any:
    """What goes with each prompt; None where there is no adapter."""
    if path is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest(NAME, 1, str(path))


def _rank(path: str) -> int:
    """From the adapter's own config; a hub id is fetched by vLLM itself, so it gets the usual room."""
    folder = Path(path)
    if not folder.is_dir():
        if folder.is_absolute() or path.startswith((".", "~")):
            raise InvalidInput(f"option adapter: no folder {path}")
        return 64
    config = folder / "adapter_config.json"
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
        kind, rank = told.get("peft_type", "LORA"), int(told["r"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"option adapter: {config} names no rank: {error}") from error
    if kind != "LORA":
        raise InvalidInput(f"option adapter: vLLM takes LORA adapters, not {kind}")
    return rank
