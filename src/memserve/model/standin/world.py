"""The names that transformers' constructors expect around them, each as far as shapes depend on it."""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import itertools
import math
import operator
import re
from importlib import import_module
from typing import Any, ClassVar

from memserve.model.standin import archive, backbones, configs, modules
from memserve.model.standin.nn import Nn
from memserve.model.standin.tensors import Function, Tensor, Torch


def library() -> Any:
    """The loader, which needs this module first."""
    return import_module("memserve.model.standin.library")


INDIFFERENT = frozenset(
    {"dtype", "torch_dtype", "attn_implementation", "trust_remote_code", "device_map", "config"}
)


def options(named: dict[str, Any]) -> dict[str, Any]:
    """Those of from_config's options that may change a model."""
    return {name: value for name, value in named.items() if name not in INDIFFERENT}


class PreTrainedModel(modules.Module):
    """The base of every model class."""

    _tied_weights_keys: ClassVar[Any] = None
    base_model_prefix = ""

    def __init__(self, config: Any, *_args: Any, **_named: Any) -> None:
        self.config = config

    @classmethod
    def _from_config(cls, config: Any, **named: Any) -> Any:
        return cls(config, **options(named))

    from_config = _from_config

    def forward(self, encoder_hidden_states: Any = None) -> None:
        """Some constructors look at what this takes."""

    def post_init(self) -> None:
        """Nothing is initialised here."""

    def get_input_embeddings(self) -> Any:
        for name in ("embed_tokens", "word_embeddings", "wte", "shared", "embeddings", "tok_embeddings"):
            found = getattr(self, name, None)
            if found is not None:
                return found
        inner = getattr(self, self.base_model_prefix or "model", None)
        return None if inner is None else inner.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return getattr(self, "lm_head", None)

    def get_parameter(self, path: str) -> Any:
        return dict(library().all_names(self))[path]

    _can_compile_fullgraph = False

    @property
    def dtype(self) -> str:
        return "float32"

    @property
    def device(self) -> str:
        return "meta"


class Generic:
    """Heads that transformers puts on any decoder."""

    bias = False
    name = "score"

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        prefix = getattr(self, "base_model_prefix", "") or "model"
        setattr(self, prefix, Auto("AutoModel").from_config(config))
        count = 2 if self.name == "qa_outputs" else config.num_labels
        bias = self.bias and bool(getattr(config, "token_classification_bias", True))
        setattr(self, self.name, modules.Linear(config.get_text_config().hidden_size, count, bias))


class GenericForSequenceClassification(Generic):
    """A classifier of sequences."""


class GenericForTokenClassification(Generic):
    """A classifier of tokens."""

    bias = True


class GenericForQuestionAnswering(Generic):
    """A finder of spans."""

    bias = True
    name = "qa_outputs"


class Auto:
    """AutoConfig, AutoModel and their kin."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_type = ""

    def class_of(self, kind: str) -> Any:
        """The config class of a model type."""
        return library().config_class(kind)

    def for_model(self, kind: str, **given: Any) -> Any:
        return library().config_class(kind)(**given)

    def from_config(self, config: Any = None, **named: Any) -> Any:
        """The model that this table gives for a config."""
        table = archive.index()["autos"].get(self.name) or archive.index()["autos"]["AutoModel"]
        kind = archive.index()["types"].get(type(config).__name__, getattr(config, "model_type", ""))
        if kind not in table:
            kind = getattr(config, "model_type", "")
        if kind not in table:
            raise LookupError(f"no {self.name} for {type(config).__name__}")
        return library().class_named(table[kind], kind)(config, **options(named))

    _from_config = from_config


class Activations:
    """ACT2FN: two of the activations have weights."""

    def __getitem__(self, name: Any) -> Any:
        kind = name[0] if isinstance(name, tuple) else name
        if kind == "prelu":
            return modules.PReLU()
        made = modules.Module()
        if kind == "xielu":
            made.alpha_p, made.alpha_n = modules.weight(1), modules.weight(1)  # type: ignore[attr-defined]
        return made

    def __contains__(self, name: object) -> bool:
        return True


class Conv1D(modules.Module):
    """GPT-2's transposed linear layer."""

    def __init__(self, out: int, into: int) -> None:
        self.nf, self.nx = out, into
        self.weight, self.bias = modules.weight(into, out), modules.weight(out)


def _consolidate(backbone_config: Any = None, default_config_type: str | None = None,
                 default_config_kwargs: dict[str, Any] | None = None, timm_default_kwargs: Any = None,
                 **extra: Any) -> Any:  # fmt: skip
    for name in (
        "use_timm_backbone",
        "backbone_kwargs",
        "backbone",
        "use_pretrained_backbone",
        "default_backbone",
    ):
        extra.pop(name, None)
    if backbone_config is None and default_config_type is not None:
        backbone_config = library().config_class(default_config_type)(**(default_config_kwargs or {}))
    elif isinstance(backbone_config, dict):
        backbone_config = library().config_class(backbone_config["model_type"])(**backbone_config)
    return backbone_config, extra


def _backbone(config: Any, **_named: Any) -> Any:
    inner = getattr(config, "backbone_config", None)
    return Auto("AutoBackbone").from_config(inner if inner is not None else config)


class Anything:
    """A value that no shape depends on."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: Any, **_named: Any) -> Any:
        return self


class ConfigMapping:
    """CONFIG_MAPPING."""

    def __getitem__(self, kind: str) -> Any:
        return library().config_class(kind)

    def __contains__(self, kind: object) -> bool:
        return kind in archive.index()["configs"]


NOTHING: Any = lambda *_args, **_named: None  # noqa: E731
TABLES = {
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "AutoModelForCausalLM",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": "AutoModelForSeq2SeqLM",
}
FUNCTIONAL = Torch(None)
NN = Nn(FUNCTIONAL)
TORCH = Torch(NN)
WORLD: dict[str, Any] = {
    "torch": TORCH, "nn": NN, "F": FUNCTIONAL, "init": FUNCTIONAL, "Tensor": Tensor, "V": "V",
    "Parameter": modules.Parameter, "LayerNorm": modules.LayerNorm, "CrossEntropyLoss": modules.Module,
    "math": math, "copy": copy, "collections": collections, "functools": functools, "itertools": itertools,
    "inspect": inspect, "operator": operator, "re": re, "deepcopy": copy.deepcopy,
    "partial": functools.partial, "reduce": functools.reduce, "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict, "cycle": itertools.cycle,
    "PreTrainedConfig": configs.PreTrainedConfig, "SubConfigSpec": configs.SubConfigSpec,
    "field": configs.Field, "PreTrainedModel": PreTrainedModel, "Conv1D": Conv1D, "ACT2FN": Activations(),
    "ACT2CLS": Activations(), "get_activation": Activations().__getitem__, "load_backbone": _backbone,
    "GradientCheckpointingLayer": modules.Module, "is_flash_attention_requested": NOTHING,
    "GenericForSequenceClassification": GenericForSequenceClassification,
    "GenericForTokenClassification": GenericForTokenClassification,
    "GenericForQuestionAnswering": GenericForQuestionAnswering, "torch_int": int,
    "remap_legacy_layer_types": configs.rename_layers,
    "GenerationMode": Anything(), "GenerationConfig": Anything(), "ABC": object, "Function": Function,
    "PreTrainedAudioTokenizerBase": PreTrainedModel, "CONFIG_MAPPING": ConfigMapping(),
    "BackboneMixin": backbones.BackboneMixin, "BackboneConfigMixin": backbones.BackboneConfigMixin,
    "Iterable": collections.abc.Iterable, "Sequence": collections.abc.Sequence,
}  # fmt: skip


def outside(name: str) -> Any:
    """A name that the constructors import and whose value no shape depends on."""
    if name in WORLD:
        return WORLD[name]
    if name == "np":
        return import_module("numpy")
    if name.startswith("Auto"):
        return Auto(name)
    if name.endswith("_MAPPING_NAMES"):
        return archive.index()["autos"].get(TABLES.get(name, ""), {})
    if name == "consolidate_backbone_kwargs_to_config":
        return _consolidate
    if name.isupper():
        return ()
    if name[:1].isupper() and not name.isupper():
        bare = name.endswith("Mixin")
        return type(name, (), {} if bare else {"__init__": lambda self, *_a, **_n: None})
    return NOTHING
