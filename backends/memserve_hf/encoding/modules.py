"""What an embedding checkpoint says about itself: sentence-transformers' module files, read without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve.errors import ModelUnreadable, Unsupported
from memserve_hf.opening.claim import Checkpoint
from memserve_hf.opening.inspection import read_json
from memserve_hf.options import Options

_FLAGS = {
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "last",
}  # fmt: skip
_WORDS = {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_ENCODER_FILES = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlnet_config.json")
_PASSIVE = frozenset({"Dropout"})


@dataclass(frozen=True)
class Recipe:
    """From tokens to a vector: the steps after the transformer, and the prompts of the roles."""

    pooling: tuple[str, ...]
    max_length: int | None = None
    lower: bool = False
    include_prompt: bool = True
    dense: tuple[Path, ...] = ()
    layer_norm: tuple[Path, ...] = ()
    normalize: bool = False
    prompts: tuple[tuple[str, str], ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        """Roles that may be asked for: the two that always exist, and the prompts by name."""
        return frozenset({"query", "document", *dict(self.prompts)})

    def prompt(self, role: str | None) -> str:
        """The words put before a text in this role; a prompt named `passage` is a role of that name."""
        return dict(self.prompts).get(role or "", "")


def recipe(checkpoint: Checkpoint, options: Options) -> Recipe:
    """The recipe of a checkpoint; `pooling=` and `max_length=` overrule its files."""
    folder = checkpoint.folder
    steps = _steps(folder)
    encoder = _first_json([folder / steps.get("Transformer", [""])[0] / name for name in _ENCODER_FILES])
    pooling, include_prompt = _pooling(folder, steps, checkpoint)
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    return Recipe(
        pooling=(options.pooling,) if options.pooling else pooling,
        max_length=options.max_length or encoder.get("max_seq_length"),
        lower=bool(encoder.get("do_lower_case")),
        include_prompt=include_prompt,
        dense=tuple(folder / path for path in steps.get("Dense", ())),
        layer_norm=tuple(folder / path for path in steps.get("LayerNorm", ())),
        normalize="Normalize" in steps,
        prompts=tuple((str(name), str(text)) for name, text in prompts.items()),
    )


def _steps(folder: Path) -> dict[str, list[str]]:
    """Module class -> its folders, in order; empty without modules.json."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    import json

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(str(row["type"]).rpartition(".")[2], str(row["path"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelUnreadable(f"{path} is not a list of modules: {error}", path=str(path)) from error
    steps: dict[str, list[str]] = {}
    for kind, where in pairs:
        if kind not in ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", *_PASSIVE):
            raise Unsupported("hf", f"the sentence-transformers module {kind}", f"named in {path}")
        steps.setdefault(kind, []).append(where)
    return steps


def _pooling(folder: Path, steps: Mapping[str, list[str]],
             checkpoint: Checkpoint) -> tuple[tuple[str, ...], bool]:  # fmt: skip
    if "Pooling" not in steps:
        return (("pooler",) if is_dpr(checkpoint.config) else ("mean",)), True
    path = folder / steps["Pooling"][0] / "config.json"
    config = read_json(path, required=True)
    word = config.get("pooling_mode")
    words = (
        [word]
        if isinstance(word, str)
        else list(word or [n for flag, n in _FLAGS.items() if config.get(flag)])
    )
    modes = tuple(_WORDS.get(mode, mode) for mode in words) or ("mean",)
    unknown = set(modes) - set(_FLAGS.values())
    if unknown:
        raise ModelUnreadable(
            f"{path}: unknown pooling {', '.join(unknown)}", path=str(path), field="pooling_mode"
        )
    return modes, bool(config.get("include_prompt", True))


def is_dpr(config: Mapping[str, Any]) -> bool:
    """DPR's encoders: a class of their own for each side, and the pooler's vector."""
    return config.get("model_type") == "dpr"


def classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The transformers classes to try for an encoder."""
    if is_dpr(config):
        return (next(iter(config.get("architectures") or ()), "DPRQuestionEncoder"),)
    return ("T5EncoderModel",) if config.get("model_type") in ("t5", "mt5") else ("AutoModel",)


def _first_json(paths: list[Path]) -> dict[str, Any]:
    return next((read_json(path) for path in paths if path.is_file()), {})
