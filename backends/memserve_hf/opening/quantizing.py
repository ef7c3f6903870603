"""Quantization: what a checkpoint is stored in, and what is asked to happen while loading."""

import os
from typing import Any

from memserve.errors import InvalidInput
from memserve.extras import missing, need
from memserve_hf.opening.claim import Checkpoint
from memserve_hf.opening.device import Place
from memserve_hf.opening.installed import present
from memserve_hf.options import Options

_BITSANDBYTES = ("nf4", "fp4", "int8")
_NEEDED = {
    "gptq": ("gptqmodel", "optimum"), "awq": ("gptqmodel",), "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
}  # fmt: skip
_EXTRAS = dict.fromkeys(("gptq", "awq", "compressed-tensors"), "hf,gptq")


def stored(config: dict[str, Any]) -> str | None:
    """The `quant_method` that a config names, for the text part where there are several."""
    for part in (config, config.get("text_config") or {}):
        method = (part.get("quantization_config") or {}).get("quant_method")
        if method:
            return str(method)
    return None


def config_for(checkpoint: Checkpoint, options: Options, place: Place) -> dict[str, Any]:
    """Arguments of `from_pretrained`; refuses a quantization that the checkpoint contradicts."""
    method, asked = stored(checkpoint.config), options.quantization
    if method:
        _agree(method, asked, checkpoint)
        _installed(method)
        return {}
    if asked in (None, "none"):
        return {}
    if asked not in _BITSANDBYTES:
        raise InvalidInput(
            f"{checkpoint.name} is not stored as {asked}",
            hint=f"name a {asked} checkpoint, or quantization='nf4' to quantize while loading",
        )
    return {"quantization_config": _bitsandbytes(str(asked), place)}


def _agree(method: str, asked: str | None, checkpoint: Checkpoint) -> None:
    same = asked is None or asked == method or (method == "bitsandbytes" and asked in _BITSANDBYTES)
    if not same:
        raise InvalidInput(
            f"{checkpoint.name} is stored as {method}, not {asked}", hint="leave quantization out"
        )


def _installed(method: str) -> None:
    for package in _NEEDED.get(method, ()):
        if present(package) is None:
            raise missing("hf", package, _EXTRAS.get(method))
    if method in ("gptq", "awq"):
        # gptqmodel asks for two loading threads however few cores there are
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def _bitsandbytes(asked: str, place: Place) -> Any:
    _installed("bitsandbytes")
    transformers, torch = need("hf", "transformers"), need("hf", "torch")
    if asked == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=asked, bnb_4bit_compute_dtype=getattr(torch, place.dtype)
    )
