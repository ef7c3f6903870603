"""Models, tokenizers and windows of text through transformers; what lies beside the weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".index.json")


def folder_of(name: str) -> str:
    """The folder of a model, fetched from the hub where it does not lie here."""
    if Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name))


def weight_bytes(folder: str) -> int:
    """Bytes of the files that hold weights."""
    path = Path(folder)
    found = [path] if path.is_file() else [one for one in path.iterdir() if one.name.endswith(WEIGHTS)]
    return sum(one.stat().st_size for one in found)


def kind_of(folder: str) -> tuple[Any, Any]:
    """The auto class that takes this architecture, pictures or none, and its config."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForImageTextToText
    return kind, config


def opened(folder: str, **more: Any) -> Any:
    """The model in its own dtype, ready to be asked; on the cards where there are some."""
    import torch

    if torch.cuda.is_available():
        more.setdefault("device_map", "auto")
    return kind_of(folder)[0].from_pretrained(folder, dtype="auto", **more).eval()


def tokenizer(folder: str) -> Any:
    """The checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def windows(words: Any, text: str, length: int, most: int) -> list[list[int]]:
    """The text in windows of so many tokens, each after the token that the model expects first."""
    ids = words(text, add_special_tokens=False)["input_ids"]
    first = words("")["input_ids"][:1]
    first = first if first and first[0] == words.bos_token_id else []
    step = length - len(first)
    found = [first + ids[at : at + step] for at in range(0, len(ids), step)]
    whole = [one for one in found if len(one) == length][:most]
    if whole:
        return whole
    if len(ids) < 2:
        raise ValueError("the text is shorter than two tokens")
    return found[:1]


def calibration(job: dict[str, Any]) -> list[list[int]]:
    """The windows that a method is calibrated on."""
    text = Path(job["text"]).read_text(encoding="utf-8")
    return windows(tokenizer(job["model"]), text, job["length"], job["samples"])


def left_alone(model: Any, patterns: Sequence[str]) -> list[str]:
    """The linear modules of this model that no method touches, by name."""
    import torch

    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    return [name for name in linear if any(re.fullmatch(one, name) for one in patterns)]


def copy_rest(source: str, target: str) -> None:
    """Tokenizer, template and whatever else lies beside the weights; what is there already stays."""
    for path in Path(source).iterdir():
        kept = path.is_file() and not path.name.endswith(WEIGHTS) and path.name != "config.json"
        if (
            kept
            and not path.name.startswith(("README", "report"))
            and not (Path(target) / path.name).exists()
        ):
            shutil.copy2(path, Path(target) / path.name)
