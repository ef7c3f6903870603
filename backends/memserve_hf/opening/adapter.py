"""A LoRA adapter put onto a model, once it is proven to be made for it."""

from pathlib import Path
from typing import Any

from memserve.errors import ModelUnreadable
from memserve.extras import need
from memserve_hf.options import Options

MARK = ".lora_"


def adapted(model: Any, options: Options) -> Any:
    """The model with its adapter: merged into plain weights, beside quantized ones."""
    name = options.adapter
    if name is None:
        return model
    peft = need("hf", "peft")
    _no_pickle(name, allowed=options.allow_pickle)
    try:
        both: Any = peft.PeftModel.from_pretrained(model, name)
        stored = set(peft.load_peft_weights(name, device="cpu"))
    except Exception as error:  # peft, safetensors and torch each have errors of their own
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelUnreadable(f"the adapter {name} cannot be read: {words}", path=name) from error
    _belongs(stored, set(peft.get_peft_model_state_dict(both)), name)
    if getattr(model, "is_quantized", False):
        return both.get_base_model()
    return both.merge_and_unload()


def _belongs(stored: set[str], wanted: set[str], name: str) -> None:
    """peft leaves out what it finds no place for, and sets to nothing what is not there."""
    odd = sorted(key for key in stored ^ wanted if MARK in key)
    if odd or not any(MARK in key for key in stored):
        what = "has no place in the model" if odd and odd[0] in stored else "is missing"
        raise ModelUnreadable(
            f"the adapter {name} does not belong to this model: {odd[0] if odd else MARK[1:]} {what}",
            path=name, field=odd[0] if odd else None,
        )  # fmt: skip


def _no_pickle(name: str, *, allowed: bool) -> None:
    folder = Path(name)
    if allowed or (folder / "adapter_model.safetensors").is_file():
        return
    if (folder / "adapter_model.bin").is_file():
        raise ModelUnreadable(
            f"{folder} holds a pickled adapter only, which can run code when loaded",
            path=str(folder / "adapter_model.bin"),
            hint="convert it to safetensors, or pass allow_pickle=True if you trust the source",
        )
