"""Builds a model's tree of shapes with transformers' own constructors, over the stand-ins."""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from memserve.model.standin import archive, modules
from memserve.model.standin.world import PreTrainedModel, outside

FLAGS = import_module("__future__").annotations.compiler_flag


class Module:
    """One reduced file; its statements run when a name is first asked for."""

    def __init__(self, name: str) -> None:
        about = archive.file(name)
        self.name = name
        self.rows: list[list[Any]] = about["rows"]
        self.imports: dict[str, list[str]] = about["imports"]
        self.home = {word: number for number, row in enumerate(self.rows) for word in row[0]}
        self.scope: dict[str, Any] = {"__name__": f"constructors.{name}"}
        self.done: set[int] = set()

    def get(self, word: str) -> Any:
        """The value of one of its names."""
        if word not in self.scope:
            self._run(word)
        return self.scope[word]

    def _run(self, word: str) -> None:
        todo = [word]
        needed: set[int] = set()
        while todo:
            number = self.home[todo.pop()]
            if number not in needed | self.done:
                needed.add(number)
                todo += self.rows[number][1]
        text = "\n".join(self.rows[number][2] for number in sorted(needed))
        for name, (home, original) in self.imports.items():
            if name not in self.scope and name in text:
                ours = home and home != "auto"
                self.scope[name] = module(home).get(original) if ours else outside(original)
        exec(compile(text, f"constructors.dat:{self.name}", "exec", FLAGS, dont_inherit=True), self.scope)
        self.done |= needed


@cache
def module(name: str) -> Module:
    """A reduced file by name."""
    return Module(name)


def class_named(name: str, kind: str) -> Any:
    """A class of transformers for a model type, reduced to its constructor."""
    home = archive.home(name, kind)
    if not home:
        raise LookupError(f"no class {name}")
    return module(home).get(name)


def config_class(kind: str) -> Any:
    """The config class of a model type."""
    home, name = archive.index()["configs"].get(kind, ("", ""))
    if not home:
        raise LookupError(f"no model type {kind}")
    return module(home).get(name)


def _model_nodes(node: Any, prefix: str, seen: set[int]) -> Any:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, PreTrainedModel):
        yield prefix, node
    for name, child in node.parts():
        if isinstance(child, modules.Module):
            yield from _model_nodes(child, f"{prefix}{name}.", seen)


def all_names(node: Any, prefix: str = "") -> Any:
    """Every weight with its name, aliases under each of theirs."""
    for name, child in node.parts():
        if isinstance(child, modules.Parameter):
            yield f"{prefix}{name}", child
        else:
            yield from all_names(child, f"{prefix}{name}.")


def tied(root: Any) -> dict[str, str]:
    """Weights that are another's alias, as `_tied_weights_keys` of every model in the tree says."""
    found: dict[str, str] = {}
    for prefix, node in _model_nodes(root, "", set()):
        mapping = node._tied_weights_keys
        if not isinstance(mapping, dict) or not getattr(node.config, "tie_word_embeddings", False):
            continue
        names = [name for name, _ in all_names(node)]
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
    root = class_named(architecture, kind)(config, **options)
    names = dict(all_names(root))
    ties = {alias: origin for alias, origin in tied(root).items() if names[alias] is not names[origin]}
    gone = {id(names[alias]) for alias in ties}
    shapes = {name: tuple(found.shape) for name, found in modules.walk(root) if id(found) not in gone}
    return Built(shapes, {alias: tuple(names[alias].shape) for alias in ties}, config)


def default_class(kind: str) -> str:
    """The class that a config without `architectures` most likely means; empty where there is none."""
    autos = archive.index()["autos"]
    order = ["AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModel"]
    if kind in autos["AutoModelForMaskedLM"]:
        order = ["AutoModel"]
    for table in order:
        found = autos[table].get(kind)
        if found:
            return str(found)
    return ""
