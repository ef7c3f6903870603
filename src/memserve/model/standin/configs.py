"""transformers' config classes: fields, aliases, nested configs, and what `__post_init__` derives."""

from __future__ import annotations

import inspect
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

LEGACY = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
    "qwen_sparse_attention": "indexed_attention",
}


def rename_layers(kinds: list[str]) -> list[str]:
    """Kinds of layers by their present names."""
    return [LEGACY.get(kind, kind) for kind in kinds]


class Field:
    """A field whose default is made anew."""

    def __init__(
        self, default: Any = None, default_factory: Callable[[], Any] | None = None, **_named: Any
    ) -> None:
        self.make = default_factory or (lambda: default)


class SubConfigSpec:
    """How a nested config is made from a table, or from nothing."""

    def __init__(self, config_class: Any, model_type: str | None = None,
                 init_kwargs: dict[str, Any] | None = None, optional: bool = False) -> None:  # fmt: skip
        self.config_class = config_class
        self.model_type = model_type or getattr(config_class, "model_type", "")
        self.init_kwargs = init_kwargs or {}
        self.optional = optional

    def create(self, given: Any) -> Any:
        """The nested config."""
        if isinstance(given, PreTrainedConfig):
            return given
        if isinstance(self.config_class, type) and issubclass(self.config_class, PreTrainedConfig):
            made = self.config_class
        else:
            kind = (given or {}).get("model_type", self.model_type)
            made = self.config_class.class_of(kind)
        return made(**(self.init_kwargs if given is None else given))


class Layers:
    """The config as each layer sees it: by number, or by the kind of layer."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __len__(self) -> int:
        return int(self.config.num_hidden_layers)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self[index] for index in range(*key.indices(len(self)))]
        if isinstance(key, str):
            key = self.config.layer_types.index(key)
        if not -len(self) <= key < len(self):
            raise IndexError(key)
        changes = self.config.__dict__.get("_overrides", {}).get(key % len(self))
        if not changes:
            return self.config
        seen = copy(self.config)
        seen.__dict__.pop("_overrides")
        for name, value in changes.items():
            setattr(seen, name, value)
        return seen


def _signed(fields: dict[str, Any]) -> Any:
    """A constructor that shows its fields, as that of a dataclass does; some configs read its signature."""

    def init(self: PreTrainedConfig, **given: Any) -> None:
        self._fill(given)

    kind = inspect.Parameter.KEYWORD_ONLY
    named = [inspect.Parameter(name, kind) for name in fields]
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    init.__signature__ = inspect.Signature([first, *named])  # type: ignore[attr-defined]
    return init


class PreTrainedConfig:
    """The base of every config class."""

    attribute_map: ClassVar[dict[str, str]] = {}
    sub_configs_defaults: ClassVar[dict[str, Any]] = {}
    model_type: ClassVar[str] = ""
    default_theta = 10_000.0
    is_encoder_decoder = False
    _fields: ClassVar[dict[str, Any]] = {
        "architectures": None, "dtype": None, "chunk_size_feed_forward": 0, "is_encoder_decoder": False,
        "id2label": None, "label2id": None, "problem_type": None, "transformers_version": None,
        "output_hidden_states": False, "return_dict": True,
    }  # fmt: skip

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        merged: dict[str, Any] = {}
        for base in reversed(cls.__mro__[1:]):
            merged.update(base.__dict__.get("_fields", {}))
        for name, mark in inspect.get_annotations(cls).items():
            if mark == "F":
                merged[name] = cls.__dict__.get(name)
        cls._fields = merged
        cls.__init__ = _signed(merged)  # type: ignore[method-assign]
        subs = cls.__dict__.get("sub_configs_defaults") or cls.__dict__.get("sub_configs")
        if isinstance(subs, dict):
            cls.sub_configs_defaults = {
                name: spec if isinstance(spec, SubConfigSpec) else SubConfigSpec(spec)
                for name, spec in subs.items()
            }

    def _fill(self, given: dict[str, Any]) -> None:
        extra = {name: value for name, value in given.items() if name not in self._fields}
        for name, default in self._fields.items():
            if name in given:
                value = given[name]
            else:
                value = default.make() if isinstance(default, Field) else deepcopy(default)
            setattr(self, name, value)
        self.__post_init__(**extra)

    def __post_init__(self, **extra: Any) -> None:
        for name, spec in self.sub_configs_defaults.items():
            value = getattr(self, name, None)
            if value is None and spec.optional:
                continue
            setattr(self, name, spec.create(value))
        if self.id2label is None:
            self.num_labels = extra.pop("num_labels", None) or 2
        if "rope_parameters" in self._fields:
            extra = self._rope(extra)
        self._experts_implementation = "eager"
        for name in ("attn_implementation", "experts_implementation", "_attn_implementation", "model_type",
                     "_attn_implementation_internal", "sub_configs"):  # fmt: skip
            extra.pop(name, None)
        for name, value in extra.items():
            setattr(self, name, value)
        kinds = getattr(self, "layer_types", None)
        if isinstance(kinds, list) and (renamed := rename_layers(kinds)) != kinds:
            self.layer_types = renamed

    def _rope(self, extra: dict[str, Any]) -> dict[str, Any]:
        scaling = extra.pop("rope_scaling", None)
        table = deepcopy(scaling or getattr(self, "rope_parameters", None) or {})
        theta = extra.pop("rope_theta", getattr(self, "rope_theta", self.default_theta))
        share = extra.pop("partial_rotary_factor", getattr(self, "partial_rotary_factor", None))
        nested = [value for value in table.values() if isinstance(value, dict)] or [table]
        for part in nested:
            part.setdefault("rope_type", part.get("type", "default"))
            part.setdefault("rope_theta", theta)
            if share is not None:
                part.setdefault("partial_rotary_factor", share)
        self.rope_parameters = table
        return extra

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(type(self).attribute_map.get(name, name), value)

    def __getattribute__(self, name: str) -> Any:
        if name[0] != "_" and name != "attribute_map":
            name = type(self).attribute_map.get(name, name)
        return super().__getattribute__(name)

    @property
    def _attn_implementation(self) -> str:
        return "eager"

    @_attn_implementation.setter
    def _attn_implementation(self, value: Any) -> None:
        """Always the plain one."""

    def standardize_rope_params(self) -> None:
        """Angles change no shape."""

    validate_rope = validate_layer_type = standardize_rope_params

    def update(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    @property
    def sub_configs(self) -> dict[str, Any]:
        return {name: spec.config_class for name, spec in self.sub_configs_defaults.items()}

    @property
    def per_layer_config(self) -> Any:
        return Layers(self)

    @per_layer_config.setter
    def per_layer_config(self, table: dict[Any, dict[str, Any]] | None) -> None:
        self.__dict__["_overrides"] = {int(layer): dict(values) for layer, values in (table or {}).items()}

    @property
    def is_heterogeneous(self) -> bool:
        return bool(self.__dict__.get("_overrides"))

    @property
    def num_labels(self) -> int:
        names = self.id2label
        return self.__dict__.get("_labels", 2) if names is None else len(names)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        self.__dict__["_labels"] = count

    @property
    def use_return_dict(self) -> bool:
        return True

    @classmethod
    def from_dict(cls, values: dict[str, Any], **_named: Any) -> PreTrainedConfig:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return {
            name: value.to_dict() if isinstance(value, PreTrainedConfig) else deepcopy(value)
            for name, value in vars(self).items()
            if not name.startswith("_")
        }

    def to_diff_dict(self) -> dict[str, Any]:
        return self.to_dict()

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """The nested config of the text side, or this one."""
        names: tuple[str, ...] = ("text_encoder", "decoder", "generator", "text_config")
        if decoder != encoder:
            names = names[1:] if decoder else names[:1]
        for name in names:
            found = getattr(self, name, None)
            if isinstance(found, PreTrainedConfig):
                return found
        return self
