"""Loads transformers' reduced constructors and builds a model's tree of shapes with them."""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import itertools
import json
import math
import operator
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

from memserve.model.standin import backbones, configs, modules
from memserve.model.standin.tensors import Function, Tensor, Torch

ARCHIVE = Path(__file__).parent.parent / "data" / "constructors.zip"


@cache
def archive() -> ZipFile:
    """The constructors, one member for each of transformers' files."""
    return ZipFile(ARCHIVE)


@cache
def index() -> dict[str, Any]:
    """Where each class is, and transformers' own tables of which class a model type means."""
    found: dict[str, Any] = json.loads(archive().read("index.json"))
    return found


class PreTrainedModel(modules.Module):
    """The base of every model class."""

    _tied_weights_keys: ClassVar[Any] = None
    base_model_prefix = ""

    def __init__(self, config: Any, *_args: Any, **_named: Any) -> None:
        self.config = config

    @classmethod
    def _from_config(cls, config: Any, **_named: Any) -> Any:
        return cls(config)

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
        return dict(_all_names(self))[path]

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
        return config_class(kind)

    def for_model(self, kind: str, **given: Any) -> Any:
        return config_class(kind)(**given)

    def from_config(self, config: Any, **_named: Any) -> Any:
        """The model that this table gives for a config."""
        table = index()["autos"].get(self.name) or index()["autos"]["AutoModel"]
        kind = index()["types"].get(type(config).__name__, getattr(config, "model_type", ""))
        found = table.get(kind) or table.get(getattr(config, "model_type", ""))
        if found is None:
            raise LookupError(f"no {self.name} for {type(config).__name__}")
        return class_named(found[0] if isinstance(found, list) else found)(config)

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
        backbone_config = config_class(default_config_type)(**(default_config_kwargs or {}))
    elif isinstance(backbone_config, dict):
        backbone_config = config_class(backbone_config["model_type"])(**backbone_config)
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
        return config_class(kind)

    def __contains__(self, kind: object) -> bool:
        return kind in index()["configs"]


NOTHING: Any = lambda *_args, **_named: None  # noqa: E731
TABLES = {
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "AutoModelForCausalLM",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": "AutoModelForSeq2SeqLM",
}
FLAGS = import_module("__future__").annotations.compiler_flag
FUNCTIONAL = Torch(None)
NN = modules.Nn(FUNCTIONAL)
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


def _outside(name: str) -> Any:
    """A name that the constructors import and whose value no shape depends on."""
    if name in WORLD:
        return WORLD[name]
    if name == "np":
        return import_module("numpy")
    if name.startswith("Auto"):
        return Auto(name)
    if name.endswith("_MAPPING_NAMES"):
        return index()["autos"].get(TABLES.get(name, ""), {})
    if name == "consolidate_backbone_kwargs_to_config":
        return _consolidate
    if name.isupper():
        return ()
    if name[:1].isupper() and not name.isupper():
        bare = name.endswith("Mixin")
        return type(name, (), {} if bare else {"__init__": lambda self, *_a, **_n: None})
    return NOTHING


@cache
def module(name: str) -> dict[str, Any]:
    """One reduced file, run; its names."""
    about = index()["modules"][name]
    scope: dict[str, Any] = {"__name__": f"constructors.{name}"}
    for outside in about["outside"]:
        scope[outside] = _outside(outside)
    for local, (home, original) in about["imports"].items():
        scope[local] = _outside(original) if home == "auto" else module(home)[original]
    text = archive().read(f"{name}.py")
    code = compile(text, f"constructors.zip/{name}.py", "exec", FLAGS, dont_inherit=True)
    exec(code, scope)
    return scope


def class_named(name: str) -> Any:
    """A class of transformers, reduced to its constructor."""
    home = index()["classes"].get(name)
    if home is None:
        raise LookupError(f"no class {name}")
    return module(home)[name]


def config_class(kind: str) -> Any:
    """The config class of a model type."""
    name = index()["configs"].get(kind)
    if name is None:
        raise LookupError(f"no model type {kind}")
    return class_named(name)


def _model_nodes(node: Any, prefix: str, seen: set[int]) -> Any:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, PreTrainedModel):
        yield prefix, node
    for name, child in node.parts():
        if isinstance(child, modules.Module):
            yield from _model_nodes(child, f"{prefix}{name}.", seen)


def _all_names(node: Any, prefix: str = "") -> Any:
    for name, child in node.parts():
        if isinstance(child, modules.Parameter):
            yield f"{prefix}{name}", child
        else:
            yield from _all_names(child, f"{prefix}{name}.")


def tied(root: Any) -> dict[str, str]:
    """Weights that are another's alias, as `_tied_weights_keys` of every model in the tree says."""
    found: dict[str, str] = {}
    for prefix, node in _model_nodes(root, "", set()):
        mapping = node._tied_weights_keys
        if not isinstance(mapping, dict) or not getattr(node.config, "tie_word_embeddings", False):
            continue
        names = [name for name, _ in _all_names(node)]
        for target, source in mapping.items():
            targets = sorted(n for n in names if re.search(f"^{target}", n))
            sources = sorted(n for n in names if re.search(f"^{source}", n))
            if not targets or not sources or len(targets) % len(sources):
                continue
            for alias, origin in zip(targets, itertools.cycle(sources), strict=False):
                found[prefix + alias] = prefix + origin
    return {alias: origin for alias, origin in found.items() if alias != origin}


@dataclass(frozen=True)
class Built:
    """A model of shapes: every weight once, tied ones apart, and its config with all defaults."""

    shapes: dict[str, tuple[int, ...]]
    aliases: dict[str, tuple[int, ...]]
    config: Any


def build(values: dict[str, Any], kind: str, architecture: str, **options: Any) -> Built:
    """The class `architecture` of the model type `kind`, built from a config."""
    config = config_class(kind)(**copy.deepcopy(values))
    root = class_named(architecture)(config, **options)
    names = dict(_all_names(root))
    ties = {alias: origin for alias, origin in tied(root).items() if names[alias] is not names[origin]}
    gone = {id(names[alias]) for alias in ties}
    shapes = {name: tuple(found.shape) for name, found in modules.walk(root) if id(found) not in gone}
    return Built(shapes, {alias: tuple(names[alias].shape) for alias in ties}, config)


def default_class(kind: str) -> str:
    """The class that a config without `architectures` most likely means; empty where there is none."""
    autos = index()["autos"]
    order = ["AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModel"]
    if kind in autos["AutoModelForMaskedLM"]:
        order = ["AutoModel"]
    for table in order:
        found = autos[table].get(kind)
        if found:
            return str(found[0] if isinstance(found, list) else found)
    return ""
