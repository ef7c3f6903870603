"""Writes model/data/defaults.jsonl: what transformers' configuration classes take for a missing field.

Facts of the file format, read from the classes that are installed; only fields that a recipe reads are kept.

    python benchmarks/config_defaults.py          # needs transformers
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parent.parent / "src" / "memserve" / "model"
OFTEN = ("tie_word_embeddings", "sliding_window", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim",
         "qk_rope_head_dim", "v_head_dim", "is_encoder_decoder", "encoder_layers", "patch_size", "num_channels",
         "type_vocab_size", "pad_token_id")  # fmt: skip
"""Further fields that an estimate reads."""
NOTE = "What a configuration's class takes for a field that config.json leaves out."


def words() -> set[str]:
    """Every word in the recipes and their tables."""
    texts = [*MODEL.rglob("*.py"), MODEL / "data" / "layouts.json"]
    return {word for path in texts for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


def rows() -> dict[str, dict[str, Any]]:
    """Of families with a recipe all that is read, of others what an estimate needs."""
    from memserve.model.recipes import generic, index
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found: dict[str, dict[str, Any]] = {}
    known = words()
    for kind in CONFIG_MAPPING:
        if kind in index.MODULES:
            add(found, kind, CONFIG_MAPPING[kind], CONFIG_MAPPING, known)
    nested = [part[0] for row in found.values() for part in row.get("subs", {}).values()]
    for kind in nested:
        if kind in CONFIG_MAPPING:
            add(found, kind, CONFIG_MAPPING[kind], CONFIG_MAPPING, known)
    few = {*generic.NAMES, *(name for others in generic.NAMES.values() for name in others), *OFTEN}
    for kind in CONFIG_MAPPING:
        add(found, kind, CONFIG_MAPPING[kind], CONFIG_MAPPING, few)
    named = {part[0] for row in found.values() for part in row.get("subs", {}).values()}
    words_of = {"vocab_size", *generic.NAMES["vocab_size"]}
    return {
        kind: row
        for kind, row in found.items()
        if kind in index.MODULES or kind in named or "subs" in row or words_of & row["fields"].keys()
    }


def add(rows: dict[str, dict[str, Any]], name: str, cls: Any, mapping: Any, known: set[str]) -> None:
    """One class, and the ones nested in it."""
    if name in rows:
        return
    row: dict[str, Any] = {"fields": fields(cls, known)}
    rows[name] = row
    aliases = {alias: field for alias, field in cls.attribute_map.items() if field in known or alias in known}
    if aliases:
        row["map"] = aliases
    nested = {}
    for field, spec in (cls.sub_configs_defaults or {}).items():
        fixed = hasattr(spec.config_class, "attribute_map")
        kind = spec.model_type
        if fixed and not (kind in mapping and mapping[kind] is spec.config_class):
            kind = spec.config_class.__name__
        nested[field] = [kind, fixed, *([plain(spec.init_kwargs)] if spec.init_kwargs else [])]
        if fixed:
            add(rows, kind, spec.config_class, mapping, known)
    if nested:
        row["subs"] = nested


def fields(cls: Any, known: set[str]) -> dict[str, Any]:
    """The fields of a class that somebody here reads."""
    from transformers import PreTrainedConfig

    common = {field.name: field.default for field in dataclasses.fields(PreTrainedConfig)}
    wanted = known | {target for alias, target in cls.attribute_map.items() if alias in known}
    found = {}
    for field in dataclasses.fields(cls):
        shared = field.name in common and common[field.name] == field.default
        if field.name not in wanted or shared or field.name == "architectures":
            continue
        value = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if plain(value) is not None:
            found[field.name] = plain(value)
    return found


def plain(value: Any) -> Any:
    """A value as JSON has it, or null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return None


def main() -> None:
    """Write the file."""
    import transformers

    source = f"transformers {transformers.__version__} configuration classes"
    head = {"note": NOTE, "source": source, "date": date.today().isoformat()}
    lines = [head, *({"type": kind, **row} for kind, row in rows().items())]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (MODEL / "data" / "defaults.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
