"""config.json -> ModelSpec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.errors import ModelUnreadable
from memserve.model import families, heads, quantization
from memserve.model.config import Config
from memserve.model.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.model.anatomy import Anatomy
    from memserve.model.spec import Quantization

DTYPES = {"float16", "bfloat16", "float32"}
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def model_type(values: Mapping[str, Any], path: str) -> str:
    """The family a config names."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ModelUnreadable(
            f"{path}: field 'model_type' is missing", path=path, field="model_type",
            hint="a transformers config.json names its family there",
        )  # fmt: skip
    return families.SAME_AS.get(kind, kind)


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


def require(config: Config) -> None:
    """Refuse a config that does not say how large the model is."""
    for field in REQUIRED:
        if not config.has(field):
            config.bad(field, "is missing")
        if not config.size(field):
            config.bad(field, "must not be zero")


def max_context(config: Config) -> int | None:
    """Positions the model was made for."""
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"):
        found = config.maybe(field)
        if found:
            return found
    return None


def rope_rows(config: Config, context: int | None) -> int:
    """Rows of the cos/sin table that engines build: positions times a linear factor."""
    if not context:
        return 0
    scaling = config.table("rope_scaling") or config.table("rope_parameters")
    kind = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor", 1)
    if kind in ("linear",) and isinstance(factor, (int, float)) and 1 <= factor <= 1024:
        return int(context * factor)
    if kind == "yarn" and isinstance(factor, (int, float)) and 1 <= factor <= 1024:
        original = scaling.get("original_max_position_embeddings")
        return int(original * factor) if isinstance(original, int) else context
    return context


def dtype_of(config: Config) -> str:
    """The dtype of the checkpoint."""
    written = str(config.given.get("dtype") or config.given.get("torch_dtype") or "").removeprefix("torch.")
    return written if written in DTYPES else "float32" if written == "float" else "bfloat16"


def partial_rotary(config: Config, width: int) -> int:
    """Channels of a head that are rotated."""
    table = config.table("rope_parameters")
    table = next((v for v in table.values() if isinstance(v, dict)), table)
    share = config.given.get("partial_rotary_factor", table.get("partial_rotary_factor", 1.0))
    rotated = config.given.get("rotary_dim")
    if isinstance(rotated, int) and not isinstance(rotated, bool) and 0 < rotated <= width:
        return rotated
    return int(width * share) if isinstance(share, (int, float)) and 0 < share <= 1 else width


def _quantization(config: Config) -> Quantization | None:
    for field in ("quantization_config", "compression_config"):
        table = config.given.get(field)
        if table is not None and not isinstance(table, dict):
            config.bad(field, "must be a table")
        found = quantization.read(table, config.path)
        if found:
            return found
    return None


def body_of(config: Config, architecture: str) -> Anatomy:
    """Layers and weights."""
    recipe = families.recipe(config.kind)
    if recipe is None:
        raise ModelUnreadable(
            f"{config.path}: model_type {config.kind[:60]!r} is not known", path=config.path,
            field="model_type", hint="install transformers, or give a folder with the safetensors index",
        )  # fmt: skip
    require(config)
    tied = config.flag("tie_word_embeddings")
    body = recipe(config)
    return heads.decoder_head(config, body, architecture, families.style_of(config.kind), tied)


def from_config(
    values: Mapping[str, Any],
    *,
    path: str = "config.json",
    name: str = "",
    source: str = "",
    notes: tuple[str, ...] = (),
) -> ModelSpec:
    """The model that a config.json describes."""
    config = Config(values, model_type(values, path), path)
    architecture = architecture_of(values, path)
    body = body_of(config, architecture)
    context = max_context(config)
    return ModelSpec(
        id=name or path,
        architecture=architecture,
        model_type=str(values["model_type"]),
        blocks=body.blocks,
        stem=body.stem,
        top=body.top,
        towers=body.towers,
        encoder=body.encoder,
        hidden=body.hidden,
        intermediate=body.intermediate,
        vocabulary=body.vocabulary,
        max_context=context,
        dtype=dtype_of(config),
        tied_embeddings=config.flag("tie_word_embeddings"),
        rope_dim=partial_rotary(config, body.rope_dim) if body.rope_dim else 0,
        rope_rows=rope_rows(config, context) if body.rope_dim else 0,
        quantization=_quantization(config),
        encoder_only=body.encoder_only,
        mtp_layers=config.size("num_nextn_predict_layers", 0),
        remote_code="auto_map" in values,
        source=source or path,
        notes=notes,
    )
