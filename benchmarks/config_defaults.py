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
NOTE = "What a configuration's class takes for a field that config.json leaves out."


def words() -> set[str]:
    """Every word in the recipes and their tables."""
    texts = [*MODEL.rglob("*.py"), MODEL / "data" / "layouts.json"]
    return {word for path in texts for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


def rows() -> dict[str, dict[str, Any]]:
    """Defaults, aliases and nested configs of each family that has a recipe, and of the ones nested in it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from memserve.model.recipes import index

    found: dict[str, dict[str, Any]] = {}
    known = words()
    left = [kind for kind in CONFIG_MAPPING if kind in index.MODULES]
    while left:
        kind = left.pop(0)
        if kind in CONFIG_MAPPING and kind not in found:
            add(found, kind, CONFIG_MAPPING[kind], CONFIG_MAPPING, known)
            left += [part[0] for part in found[kind].get("subs", {}).values()]
    return found


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
