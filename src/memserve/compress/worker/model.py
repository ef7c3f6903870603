"""Models, tokenizers and windows of text through transformers; what lies beside the weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".index.json")


def folder_of(name: str) -> str:
    """The folder of a model, fetched from the hub where it does not lie here."""
    if Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name))


def kind_of(folder: str) -> tuple[Any, Any]:
    """The auto class that takes this architecture, pictures or none, and its config."""
    config = transformers.AutoConfig.from_pretrained(folder)
    causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    return transformers.AutoModelForCausalLM if causal else transformers.AutoModelForImageTextToText, config


def opened(folder: str, **more: Any) -> Any:
    """The model in its own dtype, on the cards where there are some."""
    place = {"device_map": "auto"} if torch.cuda.is_available() else {}
    return kind_of(folder)[0].from_pretrained(folder, dtype="auto", **place, **more).eval()


def tokenizer(folder: str) -> Any:
    """The checkpoint's tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(folder)


def windows(words: Any, file: str, length: int, most: int) -> list[list[int]]:
    """A text in windows of so many tokens, each after the token that the model expects first."""
    ids = words(Path(file).read_text("utf-8"), add_special_tokens=False)["input_ids"]
    first = [words.bos_token_id] if words("")["input_ids"][:1] == [words.bos_token_id] else []
    if len(first) + len(ids) < 2:
        raise ValueError("the text is one token long")
    step = length - len(first)
    return [first + ids[at : at + step] for at in range(0, max(1, len(ids) - step + 1), step)][:most]


def calibration(job: dict[str, Any]) -> list[list[int]]:
    """The windows that a method is calibrated on."""
    return windows(tokenizer(job["model"]), job["text"], job["length"], job["samples"])


def left_alone(model: Any, patterns: Sequence[str]) -> list[str]:
    """The linear modules of this model that no method touches, by name."""
    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    return [name for name in linear if any(re.fullmatch(one, name) for one in patterns)]


def copy_rest(source: str, target: str) -> None:
    """Tokenizer, template and whatever else lies beside the weights; what is there already stays."""
    made = {"config.json", "README.md", *(path.name for path in Path(target).iterdir())}
    for path in Path(source).iterdir():
        if path.is_file() and path.name not in made and not path.name.endswith(WEIGHTS):
            shutil.copy2(path, target)
