"""config.json -> ModelSpec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.errors import ModelUnreadable
from memserve.model import quantization, rope
from memserve.model.adapted import adapt
from memserve.model.body import body
from memserve.model.config import LARGEST, Config
from memserve.model.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.model.spec import Quantization

MTP_FIELDS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "num_mtp_layers")
DTYPES = {"float16", "bfloat16", "float32"}


def model_type(values: Mapping[str, Any], path: str) -> str:
    """The family a config names."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ModelUnreadable(
            f"{path}: field 'model_type' is missing", path=path, field="model_type",
            hint="a transformers config.json names its family there",
        )  # fmt: skip
    return kind


def architecture_of(values: Mapping[str, Any], path: str) -> str:
    """The class that the checkpoint was saved from."""
    listed = values.get("architectures")
    if listed is None:
        return ""
    if not isinstance(listed, list) or (listed and not isinstance(listed[0], str)):
        raise ModelUnreadable(
            f"{path}: field 'architectures' must be a list of names", path=path, field="architectures"
        )
    return listed[0] if listed else ""


def max_context(config: Config) -> int | None:
    """Positions the model was made for."""
    for field in (
        "max_position_embeddings",
        "n_positions",
        "max_target_positions",
        "max_seq_len",
        "seq_length",
        "model_max_length",
    ):
        found = config.raw(field)
        if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= LARGEST:
            return found
    return None


def text_of(config: Config) -> Config:
    """The nested config of the language side, or the config itself."""
    for name in ("text_config", "decoder", "thinker_config"):
        if name in config.subs:
            return text_of(config.sub(name))
    return config


def mtp_layers(config: Config) -> int:
    """Layers for multi-token prediction, which transformers leaves out and engines load when asked to."""
    for name in MTP_FIELDS:
        found = config.given.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 64:
            return found
    return 0


def dtype_of(*configs: Config) -> str:
    """The dtype of the checkpoint: the first that is written."""
    words = (config.given.get(name) for config in configs for name in ("dtype", "torch_dtype"))
    written = str(next(filter(None, words), "")).removeprefix("torch.")
    return written if written in DTYPES else "float32" if written == "float" else "bfloat16"


def _quantization(config: Config) -> Quantization | None:
    for field in ("quantization_config", "compression_config"):
        table = config.given.get(field)
        if table is not None and not isinstance(table, dict):
            config.bad(field, "must be a table")
        found = quantization.read(table, config.path)
        if found:
            return found
    return None


def from_config(
    values: Mapping[str, Any],
    *,
    path: str = "config.json",
    name: str = "",
    source: str = "",
    notes: tuple[str, ...] = (),
) -> ModelSpec:
    """The model that a config.json describes."""
    model_type(values, path)
    adapted = adapt(values)
    config = Config(adapted, model_type(adapted, path), path)
    found = body(config, architecture_of(adapted, path))
    text = text_of(config)
    context = max_context(text) or max_context(config)
    rope_dim, rope_rows = rope.tables(text, found.rope_dim, context)
    return ModelSpec(
        id=name or path,
        architecture=architecture_of(values, path),
        model_type=str(values["model_type"]),
        blocks=found.blocks,
        stem=found.stem,
        top=found.top,
        towers=found.towers,
        encoder=found.encoder,
        hidden=found.hidden,
        intermediate=found.intermediate,
        vocabulary=found.vocabulary,
        max_context=context,
        dtype=dtype_of(config, text),
        tied_embeddings=any(weight.tied for weight in found.top),
        rope_dim=rope_dim,
        rope_rows=rope_rows,
        quantization=_quantization(config),
        encoder_only=found.encoder_only,
        mtp_layers=mtp_layers(text),
        remote_code="auto_map" in values,
        source=source or path,
        notes=notes,
    )
