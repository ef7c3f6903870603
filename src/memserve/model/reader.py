"""config.json -> ModelSpec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.errors import ModelUnreadable
from memserve.model import quantization
from memserve.model.adapted import adapt
from memserve.model.body import body
from memserve.model.config import LARGEST, Config
from memserve.model.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.model.spec import Quantization

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
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"):
        found = config.raw(field)
        if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= LARGEST:
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
    context = max_context(config)
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
        dtype=dtype_of(config),
        tied_embeddings=config.flag("tie_word_embeddings"),
        rope_dim=partial_rotary(config, found.rope_dim) if found.rope_dim else 0,
        rope_rows=rope_rows(config, context) if found.rope_dim else 0,
        quantization=_quantization(config),
        encoder_only=found.encoder_only,
        mtp_layers=config.size("num_nextn_predict_layers", 0),
        remote_code="auto_map" in values,
        source=source or path,
        notes=notes,
    )
