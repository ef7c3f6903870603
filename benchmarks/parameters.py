"""Parameter counts: our recipes beside transformers on the meta device.

    python benchmarks/parameters.py             # compares with tests/data/parameters.json, seconds, no torch
    python benchmarks/parameters.py --live      # builds every model anew; needs torch and transformers
    python benchmarks/parameters.py --write     # and writes the file again

The published configs are read from the folder in MEMSERVE_SHARED (default: ../shared beside the checkout).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ANSWERS = ROOT / "tests" / "data" / "parameters.json"
SHARED = Path(os.environ.get("MEMSERVE_SHARED", ROOT.parent / "shared"))
sys.path.insert(0, str(ROOT / "tests" / "support"))
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
SECONDS = 90
NEAR = 0.03


def published() -> dict[str, dict[str, Any]]:
    """The configs under facts/configs by their folder."""
    files = sorted((SHARED / "facts" / "configs").glob("*/config.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in files}


def ours(config: dict[str, Any]) -> tuple[int, bool] | str:
    """memserve's count and whether it is exact, or why there is none."""
    from memserve.errors import MemserveError
    from memserve.model import reader

    try:
        found = reader.from_config(config)
    except MemserveError as error:
        return str(error)[:100]
    return found.parameters, found.exact


def sparse(kind: str, architecture: str) -> dict[str, Any]:
    """The least config of an architecture: what has to be said, everything else by default."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[kind]
    settings = cls()
    config: dict[str, Any] = {"model_type": kind, "architectures": [architecture]}
    if cls.sub_configs_defaults:
        return {**config, **{name: {} for name in cls.sub_configs_defaults}}
    for name in REQUIRED:
        value = getattr(settings, name, None)
        if value is not None:
            config[cls.attribute_map.get(name, name)] = value
    return config


def architectures() -> list[tuple[str, str]]:
    """Every model type with every class of the tables above."""
    import oracle
    from transformers.models.auto import modeling_auto

    found: dict[tuple[str, str], None] = {}
    for table in oracle.TABLES:
        for kind, names in getattr(modeling_auto, f"{table}_MAPPING_NAMES").items():
            for name in [names] if isinstance(names, str) else names:
                found[kind, name] = None
    return list(found)


def _late(*_args: object) -> None:
    raise TimeoutError("too large to build here")


def live() -> dict[str, Any]:
    """transformers' answers: published configs, least ones of each class, drawn ones of each recipe."""
    import oracle
    import transformers

    from memserve.model.recipes import index

    signal.signal(signal.SIGALRM, _late)
    counts: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for folder, config in published().items():
        with suppress(Exception):
            counts[folder] = oracle.parameters(config)
    for kind, architecture in architectures():
        signal.alarm(SECONDS)
        with suppress(Exception):
            config = sparse(kind, architecture)
            rows.append({"config": config, "parameters": oracle.parameters(config)})
        signal.alarm(0)
    drawn = [
        {"config": config, "parameters": count}
        for kind in sorted(index.MODULES)
        if oracle.known(kind)
        for config, count in oracle.configs(kind)
    ]
    return {"transformers": transformers.__version__, "published": counts, "defaults": rows, "drawn": drawn}


def compare(answers: dict[str, Any]) -> list[str]:
    """A table of how many agree, and one line for every exact count that does not."""
    configs = published()
    known = [
        {"config": configs[name], "parameters": count}
        for name, count in answers["published"].items()
        if name in configs
    ]
    wrong: list[str] = []
    print(f"transformers {answers['transformers']}")
    print(f"{'configs':12}" + "".join(f"{verdict:>8}" for verdict in VERDICTS))
    for title, rows in (("published", known), ("defaults", answers["defaults"]), ("drawn", answers["drawn"])):
        judged = [judge(row["config"], row["parameters"], wrong) for row in rows]
        print(f"{title:12}" + "".join(f"{judged.count(verdict):8}" for verdict in VERDICTS))
    return wrong


VERDICTS = ("exact", "near", "far", "refused")


def judge(config: dict[str, Any], count: int, wrong: list[str]) -> str:
    """How our count stands beside transformers'."""
    found = ours(config)
    if isinstance(found, str):
        return "refused"
    ours_, exact = found
    if exact and ours_ != count:
        wrong.append(f"{config['model_type']} {config['architectures'][0]}: {ours_} instead of {count}")
    return "exact" if exact else "near" if abs(ours_ / max(count, 1) - 1) <= NEAR else "far"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    answers = live() if options.live or options.write else json.loads(ANSWERS.read_text(encoding="utf-8"))
    if options.write:
        text = json.dumps(answers, separators=(",", ":")).replace('{"config"', '\n{"config"')
        ANSWERS.write_text(text + "\n", encoding="utf-8")
    wrong = compare(answers)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
