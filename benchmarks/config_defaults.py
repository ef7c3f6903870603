"""Defaults, aliases and nested configs of transformers' config classes, for constructors.py."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

DEFAULT_DROP = re.compile(
    r"dropout|drop_path|droprate|_eps$|epsilon|initializer|init_std|token_id|token_index|_ids?$|^output_(?!proj)|coef|"
    r"jitter|^summary_|use_cache|^rope_|softcap|(?<!dim)_multiplier$|factor$|theta|scal|layerdrop|^mask_(time|feature)|"
    r"_loss|num_beams|_penalty|beta$|alpha$|gain|_tokens?$|sampl|temperature|_std$|activation|^hidden_act|_act$|"
    r"label2id|return_dict|problem_type|transformers_version|architectures|^dtype|chunk_size_feed"
)


def rows() -> dict[str, dict[str, Any]]:
    """Defaults, aliases and nested configs of every config class."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found: dict[str, dict[str, Any]] = {}
    for kind in CONFIG_MAPPING:
        add_defaults(found, kind, CONFIG_MAPPING[kind], CONFIG_MAPPING)
    return found


def add_defaults(rows: dict[str, dict[str, Any]], name: str, cls: Any, mapping: Any) -> None:
    if name in rows:
        return
    row: dict[str, Any] = {"fields": field_defaults(cls)}
    rows[name] = row
    if cls.attribute_map:
        row["map"] = dict(cls.attribute_map)
    subs = {}
    for field, spec in (cls.sub_configs_defaults or {}).items():
        fixed = hasattr(spec.config_class, "attribute_map")
        kind = spec.model_type
        if fixed and not (kind in mapping and mapping[kind] is spec.config_class):
            kind = spec.config_class.__name__
        subs[field] = [kind, fixed, *([plain(spec.init_kwargs)] if spec.init_kwargs else [])]
        if fixed:
            add_defaults(rows, kind, spec.config_class, mapping)
    if subs:
        row["subs"] = subs


def field_defaults(cls: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(cls):
        if DEFAULT_DROP.search(field.name):
            continue
        value = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        found[field.name] = plain(value)
    return found


def plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return None
