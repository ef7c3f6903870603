"""config.json -> ModelSpec, with the cos/sin tables that engines build for rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from memserve import files
from memserve.errors import ModelUnreadable
from memserve.model.config import LARGEST, Config, adapt
from memserve.model.recipes.index import Headers, inventory
from memserve.model.spec import ModelSpec, Quantization
from memserve.model.stored import quantization

if TYPE_CHECKING:
    from pathlib import Path

    from memserve.model.stored.headers import Gguf


# Share of a head's channels that is rotated, where a config leaves it to its class.
SHARES = {
    "phi": 0.5, "glm": 0.5, "glm4": 0.5, "glm4_moe": 0.5, "glm4v_text": 0.5, "glm4v_moe_text": 0.5,
    "qwen3_next": 0.25, "qwen3_5_text": 0.25, "qwen3_5_moe_text": 0.25, "stablelm": 0.25, "gpt_neox": 0.25,
    "nemotron": 0.5, "persimmon": 0.5,
}  # fmt: skip
# Families with a second, unscaled table for their sliding layers.
TWO_TABLES = frozenset({"gemma3_text", "gemma3n_text"})
VIDEO_STRETCH = 4
MOST = 1 << 34


def _positive(value: object) -> float | None:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and 0 < value <= MOST else None  # type: ignore[operator, arg-type]


def share(config: Config, table: Mapping[str, Any], width: int) -> int:
    """Channels of a head that are rotated."""
    for written in (config.given.get("rotary_dim"), table.get("rotary_dim")):
        found = _positive(written)
        if found and found <= width:
            return int(found)
    for name in ("partial_rotary_factor", "rotary_pct"):
        part = _positive(table.get(name, config.given.get(name)))
        if part and part <= 1:
            return int(width * part)
    return int(width * SHARES.get(config.kind, 1.0))


VIDEO_FAMILIES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"})
"""They turn by time, height and width, whether the config says so or leaves it to the class."""


def _rows(table: Mapping[str, Any], context: int) -> float:
    """Rows of one table."""
    kind = table.get("rope_type", table.get("type"))
    factor = _positive(table.get("factor")) or 1.0
    original = _positive(table.get("original_max_position_embeddings"))
    if isinstance(table.get("mrope_section"), list):
        return context * VIDEO_STRETCH
    if kind in ("linear", "dynamic"):
        return context * factor
    if kind in ("yarn", "deepseek_yarn"):
        return (original or context) * factor
    if kind in ("longrope", "su"):
        return context + (original or 0)
    return context


def tables(config: Config, width: int, context: int | None) -> tuple[int, int]:
    """The widest rotation, and how many rows of that width all tables have together."""
    if not context or not width:
        return 0, 0
    written = config.table("rope_parameters") or config.table("rope_scaling")
    nested = [(name, value) for name, value in written.items() if isinstance(value, dict)]
    parts = nested or [("", written)]
    if config.kind in TWO_TABLES and not nested:
        parts.append(("sliding_attention", {}))
    original = config.given.get("original_max_position_embeddings")
    sizes = []
    for kind, part in parts:
        if config.kind.removesuffix("_text") in VIDEO_FAMILIES:
            part = {"mrope_section": [], **part}
        if original is not None:
            part = {"original_max_position_embeddings": original, **part}
        wide = config.maybe("global_head_dim") if kind == "full_attention" else None
        sizes.append((share(config, part, wide or width), min(_rows(part, context), MOST)))
    widest = max(size for size, _ in sizes)
    if not widest:
        return 0, 0
    return widest, round(sum(size * rows for size, rows in sizes) / widest)


MTP_FIELDS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "num_mtp_layers")
POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "xmod", "longformer", "data2vec-text"}
)
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


def after_padding(config: Config, positions: int | None) -> int | None:
    """Tokens that the positions serve: RoBERTa and its kin count from behind the padding token."""
    padding = config.raw("pad_token_id")
    if positions is None or config.kind not in POSITIONS_AFTER_PADDING:
        return positions
    taken = padding + 1 if isinstance(padding, int) and 0 <= padding < 8 else 2
    return max(1, positions - taken)


def text_of(config: Config) -> Config:
    """The nested config of the language side, or the config itself."""
    for name in ("text_config", "decoder", "thinker_config", "llm_config", "language_config"):
        if name in config.subs or (not config.known and isinstance(config.given.get(name), dict)):
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


def _quantization(*configs: Config) -> Quantization | None:
    for config in configs:
        for field in ("quantization_config", "compression_config"):
            table = config.given.get(field)
            if table is not None and not isinstance(table, dict):
                config.bad(field, "must be a table")
            found = quantization.read(table, config.path)
            if found:
                fp4 = any(one.given.get("expert_dtype") == "fp4" for one in configs)
                return quantization.with_fp4_experts(found) if fp4 else found
    return None


class Origin(NamedTuple):
    """Where a config came from, and where else its weights may be counted."""

    path: str = "config.json"
    name: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    headers: Headers | None = None


def from_config(values: Mapping[str, Any], *, path: str = "config.json", name: str = "", source: str = "",
                notes: tuple[str, ...] = ()) -> ModelSpec:  # fmt: skip
    """The model that a config.json describes."""
    return _read(values, Origin(path, name, source, notes))


def from_folder(folder: Path, values: Mapping[str, Any], path: str, name: str,
                remote: Headers | None = None) -> ModelSpec:  # fmt: skip
    """The model of a folder: its config, what stands beside it, and the headers of its weights.

    `remote` reads the headers where the weights are not in the folder.
    """
    from memserve.model.stored import headers

    if not values.get("quantization_config"):
        values = {**values, "quantization_config": headers.settings(folder) or None}
    here = any(shard.is_file() for shard in headers.shards(folder))
    where = partial(headers.tensors, folder) if here else remote
    found = _read(values, Origin(path, name, headers=where))
    return replace(found, stored=headers.by_dtype(headers.tensors(folder))) if here else found


def _read(values: Mapping[str, Any], origin: Origin) -> ModelSpec:
    """The model; a field of a kind that its recipe does not expect is one line, whichever it is."""
    try:
        return _described(values, origin)
    except files.STUMBLES as error:
        reason = f"{type(error).__name__}: {str(error)[:80]}"
        raise ModelUnreadable(f"{origin.path}: a field is malformed: {reason}", path=origin.path) from error


def _described(values: Mapping[str, Any], origin: Origin) -> ModelSpec:
    path = origin.path
    model_type(values, path)
    adapted = adapt(values)
    config = Config(adapted, model_type(adapted, path), path)
    text = text_of(config)
    stored_as = _quantization(config, text)
    found, note = inventory(config, architecture_of(adapted, path), origin.headers, stored_as)
    context = after_padding(text, max_context(text) or max_context(config))
    rope_dim, rope_rows = tables(text, found.rope_dim, context)
    return ModelSpec(
        id=origin.name or path, architecture=architecture_of(values, path),
        model_type=str(values["model_type"]), blocks=found.blocks, stem=found.stem, top=found.top,
        towers=found.towers, encoder=found.encoder, hidden=found.hidden, intermediate=found.intermediate,
        vocabulary=found.vocabulary, max_context=context, dtype=dtype_of(config, text),
        tied_embeddings=any(weight.tied for weight in found.top), rope_dim=rope_dim, rope_rows=rope_rows,
        quantization=stored_as, exact=found.exact, encoder_only=found.encoder_only,
        mtp_layers=mtp_layers(text), remote_code="auto_map" in values, source=origin.source or path,
        notes=(*origin.notes, *((note,) if note else ())),
    )  # fmt: skip


def from_gguf(file: Gguf, path: str) -> ModelSpec:
    """The model of a GGUF file."""
    from memserve.model.recipes import generic as stored

    found, stored_as, settings = stored.from_gguf(file, path)
    config = Config(settings.values, "", path)
    context = max_context(config)
    rope_dim, rope_rows = tables(config, found.rope_dim, context)
    kinds: dict[str, int] = {}
    for entry in file.tensors.values():
        kinds[entry.kind] = kinds.get(entry.kind, 0) + entry.bytes
    return ModelSpec(
        id=str(file.metadata.get("general.name") or path), architecture="", model_type=settings.model_type,
        blocks=found.blocks, stem=found.stem, top=found.top, hidden=found.hidden,
        intermediate=found.intermediate, vocabulary=found.vocabulary, max_context=context, dtype="float16",
        tied_embeddings=any(weight.tied for weight in found.top), rope_dim=rope_dim, rope_rows=rope_rows,
        quantization=stored_as, source=path, stored=tuple(sorted(kinds.items(), key=lambda item: -item[1])),
    )  # fmt: skip
