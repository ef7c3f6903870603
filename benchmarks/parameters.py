"""Parameter counts: memserve without torch beside transformers on the meta device.

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
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
TABLES = ("MODEL_FOR_CAUSAL_LM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_IMAGE_TEXT_TO_TEXT",
          "MODEL_FOR_MASKED_LM", "MODEL_FOR_SPEECH_SEQ_2_SEQ", "MODEL")  # fmt: skip
SECONDS = 90


def published() -> dict[str, dict[str, Any]]:
    """The configs under facts/configs by their folder."""
    files = sorted((SHARED / "facts" / "configs").glob("*/config.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in files}


def ours(config: dict[str, Any]) -> int | str:
    """memserve's count, or why there is none."""
    from memserve.errors import MemserveError
    from memserve.model import reader

    try:
        return reader.from_config(config).parameters
    except MemserveError as error:
        return str(error)[:100]


def built(config: dict[str, Any]) -> int:
    """transformers' count: the class named in `architectures` on the meta device, tied weights once."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config["model_type"]
    values = {
        name: value for name, value in config.items() if name not in ("quantization_config", "model_type")
    }
    settings = CONFIG_MAPPING[kind].from_dict(json.loads(json.dumps(values)))
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(settings)
    model.tie_weights()
    return sum(weight.numel() for weight in model.parameters())


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
    from transformers.models.auto import modeling_auto

    found: dict[tuple[str, str], None] = {}
    for table in TABLES:
        for kind, names in getattr(modeling_auto, f"{table}_MAPPING_NAMES").items():
            for name in [names] if isinstance(names, str) else names:
                found[kind, name] = None
    return list(found)


def _late(*_args: object) -> None:
    raise TimeoutError("too large to build here")


def live() -> dict[str, Any]:
    """transformers' answers for every config it can build."""
    import transformers

    signal.signal(signal.SIGALRM, _late)
    rows: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for folder, config in published().items():
        with suppress(Exception):
            counts[folder] = built(config)
    for kind, architecture in architectures():
        signal.alarm(SECONDS)
        with suppress(Exception):
            config = sparse(kind, architecture)
            rows.append({"config": config, "parameters": built(config)})
        signal.alarm(0)
    return {"transformers": transformers.__version__, "published": counts, "defaults": rows}


def compare(answers: dict[str, Any]) -> list[str]:
    """One line for every disagreement."""
    configs = published()
    pairs = [(name, configs[name], count) for name, count in answers["published"].items() if name in configs]
    pairs += [
        (
            f"{row['config']['model_type']} {row['config']['architectures'][0]}",
            row["config"],
            row["parameters"],
        )
        for row in answers["defaults"]
    ]
    wrong = [
        f"{name}: {found} instead of {count}"
        for name, config, count in pairs
        if (found := ours(config)) != count
    ]
    print(f"transformers {answers['transformers']}: {len(pairs) - len(wrong)} of {len(pairs)} exact")
    return wrong


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
