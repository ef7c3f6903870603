"""A config.json read with care, in transformers' own words; what is missing comes from its classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from memserve import files
from memserve.errors import ModelUnreadable

if TYPE_CHECKING:
    from pathlib import Path


Values = dict[str, Any]


def _chatglm(given: Mapping[str, Any]) -> Values:
    """ChatGLM and GLM-4 before their port: transformers' `glm`."""
    heads = given.get("num_attention_heads")
    grouped = given.get("multi_query_attention")
    return {
        **{k: v for k, v in given.items() if k not in ("num_layers", "auto_map")},
        "model_type": "glm",
        "architectures": ["GlmForCausalLM"],
        "num_hidden_layers": given.get("num_hidden_layers", given.get("num_layers")),
        "intermediate_size": given.get("ffn_hidden_size"),
        "vocab_size": given.get("padded_vocab_size", given.get("vocab_size")),
        "num_key_value_heads": given.get("multi_query_group_num") if grouped else heads,
        "head_dim": given.get("kv_channels"),
        "attention_bias": bool(given.get("add_qkv_bias", False)),
        "max_position_embeddings": given.get("seq_length"),
    }


def _renamed(kind: str, architecture: str, **fields: str) -> Callable[[Mapping[str, Any]], Values]:
    """A family that differs in its name, and in the names of some fields, only."""

    def adapt(given: Mapping[str, Any]) -> Values:
        changed = {new: given[old] for new, old in fields.items() if old in given}
        return {**given, **changed, "model_type": kind, "architectures": [architecture]}

    return adapt


def _qwen1(given: Mapping[str, Any]) -> Values:
    """The first Qwen: Qwen2's layer, with a doubled feed-forward width in its config."""
    width = given.get("intermediate_size")
    return {
        **given, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
        "intermediate_size": width // 2 if isinstance(width, int) else width,
        "num_key_value_heads": given.get("num_attention_heads"),
    }  # fmt: skip


def _minicpm(given: Mapping[str, Any]) -> Values:
    """MiniCPM: Llama, with the tied embeddings that were the default when it was written."""
    return {
        "tie_word_embeddings": True, **given, "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip


def _internvl(given: Mapping[str, Any]) -> Values:
    """InternVL's own repositories: the same model as transformers' `internvl`."""
    seen = given.get("vision_config")
    text = given.get("llm_config")
    vision = dict(seen) if isinstance(seen, dict) else {}
    return {
        "model_type": "internvl",
        "architectures": ["InternVLForConditionalGeneration"],
        "text_config": dict(adapt(text)) if isinstance(text, dict) else text,
        "vision_config": {
            **{name: vision[name] for name in VISION_FIELDS if name in vision},
            "model_type": "internvl_vision",
            "attention_bias": bool(vision.get("qkv_bias", True)),
            "use_qk_norm": bool(vision.get("qk_normalization", False)),
        },
        "downsample_ratio": given.get("downsample_ratio", 0.5),
        "tie_word_embeddings": bool(given.get("tie_word_embeddings", False)),
        **{name: given[name] for name in ("torch_dtype", "dtype", "quantization_config") if name in given},
    }


def _nomic(given: Mapping[str, Any]) -> Values:
    """Nomic's encoder before its port, in GPT-2's words."""
    words = {
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
    }  # fmt: skip
    changed = {new: given[old] for new, old in words.items() if old in given}
    return {**changed, **{name: value for name, value in given.items() if name != "auto_map"}}


VISION_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
    "patch_size", "norm_type", "num_channels",
)  # fmt: skip
ADAPTERS: dict[str, Callable[[Mapping[str, Any]], Values]] = {
    "chatglm": _chatglm, "qwen": _qwen1, "kimi_k2": _renamed("deepseek_v3", "DeepseekV3ForCausalLM"),
    "Yi": _renamed("llama", "LlamaForCausalLM"), "internlm2": _renamed("llama", "LlamaForCausalLM"),
    "internlm": _renamed("llama", "LlamaForCausalLM", attention_bias="bias"),
    "mimo": _renamed("qwen2", "Qwen2ForCausalLM"), "baichuan": _renamed("llama", "LlamaForCausalLM"),
    "minicpm": _minicpm, "internvl_chat": _internvl, "nomic_bert": _nomic,
    "aquila": _renamed("llama", "LlamaForCausalLM"),
}  # fmt: skip


def adapt(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config itself, or its translation."""
    kind = given.get("model_type")
    adapter = ADAPTERS.get(kind) if isinstance(kind, str) else None
    return adapter(given) if adapter else given


LARGEST = 1 << 32
MOST_LAYERS = 4096
DEEPEST = 6


@cache
def _default_lines() -> str:
    return files.beside(__file__, "data/defaults.jsonl")


@cache
def class_defaults(kind: str) -> dict[str, Any]:
    """The row of one transformers config class: fields, aliases ("map") and nested configs ("subs")."""
    text = _default_lines()
    start = text.find(f'{{"type":{json.dumps(kind)},')
    if start < 0:
        return {}
    row: dict[str, Any] = json.loads(text[start : text.index("\n", start)])
    return row


class Config:
    """One (nested) config: attribute names as transformers has them, values checked when they are read."""

    def __init__(self, values: Mapping[str, Any], kind: str, path: str, prefix: str = "") -> None:
        row = class_defaults(kind)
        self.kind = kind
        self.path = path
        self.prefix = prefix
        self.given = dict(values)
        self.known = bool(row)
        self.aliases: dict[str, str] = row.get("map", {})
        self.subs: dict[str, list[Any]] = row.get("subs", {})
        self.fields: dict[str, Any] = row.get("fields", {})
        for alias, field in self.aliases.items():
            if alias in self.given:
                self.given.setdefault(field, self.given[alias])

    def bad(self, field: str, why: str) -> NoReturn:
        """Refuse the config because of one field."""
        name = f"{self.prefix}{field}"
        raise ModelUnreadable(f"{self.path}: field {name!r} {why}", path=self.path, field=name)

    def has(self, field: str) -> bool:
        """Whether the file itself (not a default) gives a value that is not null."""
        return self._given(field) is not None

    def _given(self, field: str) -> Any:
        value = self.given.get(self.aliases.get(field, field))
        if value is None:
            value = self.given.get(field)
        return value

    def raw(self, field: str, default: Any = None) -> Any:
        """The value as written, else the class default, else `default`. An explicit null stays null."""
        target = self.aliases.get(field, field)
        for name in (target, field):
            if name in self.given:
                return self.given[name]
        found = self.fields.get(target, self.fields.get(field))
        return default if found is None else found

    def maybe(self, field: str) -> int | None:
        """A count, or None where it is null or unknown."""
        value = self.raw(field)
        return None if value is None else self._count(field, value)

    def size(self, field: str, default: int | None = None) -> int:
        """A count that must be known."""
        value = self.raw(field, default)
        if value is None:
            value = default
        if value is None:
            self.bad(field, "is missing")
        return self._count(field, value)

    def _count(self, field: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.bad(field, f"must be a whole number, not {_show(value)}")
        if not 0 <= value <= LARGEST:
            self.bad(field, f"is out of range: {_show(value)}")
        return value

    def first(self, *fields: str) -> int:
        """The first of several spellings that is there."""
        for field in fields:
            value = self.maybe(field)
            if value is not None:
                return value
        return self.bad(fields[0], "is missing")

    def flag(self, field: str, default: bool = False) -> bool:
        """A switch."""
        value = self.raw(field, default)
        if value is None:
            return default
        if not isinstance(value, (bool, int)):
            self.bad(field, f"must be true or false, not {_show(value)}")
        return bool(value)

    def text(self, field: str, default: str = "") -> str:
        """A word."""
        value = self.raw(field, default)
        if value is None:
            return default
        if not isinstance(value, str):
            self.bad(field, f"must be text, not {_show(value)}")
        return value

    def items(self, field: str) -> list[Any] | None:
        """A list, or None."""
        value = self.raw(field)
        if value is not None and not isinstance(value, list):
            self.bad(field, f"must be a list, not {_show(value)}")
        return value

    def table(self, field: str) -> dict[str, Any]:
        """A nested table, empty where it is missing or null."""
        value = self.raw(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.bad(field, f"must be a table, not {_show(value)}")
        return value

    def layers(self, field: str = "num_hidden_layers") -> int:
        """The number of layers, within reason."""
        count = self.size(field)
        if not 1 <= count <= MOST_LAYERS:
            self.bad(field, f"is out of range: {count}")
        return count

    def pair(self, field: str, default: int | None = None) -> tuple[int, int]:
        """An image or patch size: one number or two."""
        value = self.raw(field, default)
        if isinstance(value, list) and len(value) == 2:
            return self._count(field, value[0]), self._count(field, value[1])
        if value is None:
            self.bad(field, "is missing")
        side = self._count(field, value)
        return side, side

    def sub(self, field: str) -> Config:
        """A nested config with the defaults of its own class."""
        if self.prefix.count(".") >= DEEPEST:
            self.bad(field, "is nested too deep")
        kind, fixed, *rest = self.subs.get(field, ["", False])
        given = self.table(field)
        if not given and field == "text_config" and self.has("hidden_size"):
            given = {name: value for name, value in self.given.items() if name != "model_type"}
        if self.raw(field) is None and not given and rest:
            given = rest[0]
        written = given.get("model_type")
        if not fixed and isinstance(written, str) and written:
            kind = written
        return Config(given, kind, self.path, f"{self.prefix}{field}.")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or ModelUnreadable."""
    try:
        found = files.parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelUnreadable(f"{path}: cannot be read: {error.strerror}", path=str(path)) from error
    except ValueError as error:
        raise ModelUnreadable(f"{path}: not valid JSON: {str(error)[:120]}", path=str(path)) from error
    if not isinstance(found, dict):
        raise ModelUnreadable(f"{path}: holds no JSON object", path=str(path))
    return found
