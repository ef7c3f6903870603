"""How a checkpoint is stored: `quantization_config` of every dialect, in memserve's names."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from memserve.errors import ModelUnreadable
from memserve.model.spec import Quantization


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _bits(table: Mapping[str, Any], default: float = 4.0) -> float:
    for name in ("bits", "w_bit", "nbits", "num_bits"):
        found = table.get(name)
        if found is None:
            continue
        if not isinstance(found, (int, float)) or isinstance(found, bool) or not 1 <= found <= 32:
            raise ValueError(f"{name} must be a number from 1 to 32, not {str(found)[:40]!r}")
        return float(found)
    return default


def _names(table: Mapping[str, Any], *fields: str) -> tuple[str, ...]:
    found: list[str] = []
    for field in fields:
        value = table.get(field)
        if isinstance(value, (list, tuple)):
            found += [name for name in value if isinstance(name, str)]
    return tuple(dict.fromkeys(found))


def _group(table: Mapping[str, Any], default: int | None = 128) -> int | None:
    for name in ("group_size", "q_group_size"):
        if name in table:
            found = table[name]
            if found is not None and _whole(found) is None:
                raise ValueError(f"{name} must be a whole number, not {str(found)[:40]!r}")
            return _whole(found)
    return default


def _block(size: object) -> tuple[int, int] | None:
    """Rows and columns that share a scale."""
    if size is None:
        return None
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all((_whole(n) or 0) > 0 for n in size):
        raise ValueError(f"a block is two whole numbers above 0, not {str(size)[:40]!r}")
    return (size[0], size[1])


def _gptq(table: Mapping[str, Any]) -> Quantization:
    return Quantization(
        "gptq", "gptq", _bits(table), _group(table), zero_points=not table.get("sym", True),
        format=str(table.get("checkpoint_format") or "gptq"), desc_act=bool(table.get("desc_act", False)),
        ignored=(*_names(table, "modules_to_not_convert"), *_dynamic(table)),
        head=bool(table.get("lm_head", False)),
    )  # fmt: skip


def _dynamic(table: Mapping[str, Any]) -> tuple[str, ...]:
    """GPTQModel's own way to skip modules: patterns that begin with "-:"."""
    rules = table.get("dynamic")
    if not isinstance(rules, dict):
        return ()
    return tuple(f"re:{name[2:]}" for name in rules if isinstance(name, str) and name.startswith("-:"))


def _awq(table: Mapping[str, Any]) -> Quantization:
    return Quantization(
        "awq", "awq", _bits(table), _group(table), zero_points=bool(table.get("zero_point", True)),
        format=str(table.get("version") or "gemm").lower(), ignored=_names(table, "modules_to_not_convert"),
    )  # fmt: skip


def _bitsandbytes(table: Mapping[str, Any]) -> Quantization:
    ignored = _names(table, "llm_int8_skip_modules")
    if table.get("load_in_4bit", table.get("_load_in_4bit")):
        kind = str(table.get("bnb_4bit_quant_type") or "fp4")
        return Quantization(
            "nf4", "bitsandbytes", 4.0, 64, double=bool(table.get("bnb_4bit_use_double_quant")),
            format=kind, ignored=ignored,
        )  # fmt: skip
    return Quantization("int8", "bitsandbytes", 8.0, -1, ignored=ignored)


def _fp8(table: Mapping[str, Any]) -> Quantization:
    return Quantization(
        "fp8", "fp8", 8.0, block=_block(table.get("weight_block_size")),
        format=str(table.get("fmt") or "e4m3"),
        activations=str(table.get("activation_scheme") or "dynamic"),
        ignored=_names(table, "modules_to_not_convert", "ignored_layers", "ignore"),
    )  # fmt: skip


def _fbgemm(table: Mapping[str, Any]) -> Quantization:
    return Quantization(
        "fp8", "fbgemm_fp8", 8.0, -1, format="e4m3", activations="dynamic",
        ignored=_names(table, "modules_to_not_convert"),
    )  # fmt: skip


def _compressed(table: Mapping[str, Any]) -> Quantization:
    groups = table.get("config_groups")
    schemes = [g for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    if not schemes:
        return Quantization("none", "compressed-tensors", ignored=_names(table, "ignore"))
    group = max(schemes, key=_coverage)
    main = _one_group(group, table)
    others = tuple(
        replace(_one_group(other, table), targets=_names(other, "targets"), ignored=())
        for other in schemes
        if other is not group
    )
    return replace(main, others=others, kv_dtype=_kv_dtype(table))


def _kv_dtype(table: Mapping[str, Any]) -> str:
    """What the checkpoint's own calibration asks of the KV cache."""
    scheme = table.get("kv_cache_scheme")
    eight = isinstance(scheme, dict) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
    return "fp8" if eight or str(table.get("kv_cache_quant_algo")).upper() == "FP8" else ""


def _one_group(group: Mapping[str, Any], table: Mapping[str, Any]) -> Quantization:
    weights = group.get("weights") or {}
    inputs = group.get("input_activations")
    form = str(group.get("format") or table.get("format") or "")
    bits = _bits(weights, 8.0)
    method = _scheme(bits, str(weights.get("type") or "int"), inputs, form, _whole(weights.get("group_size")))
    return Quantization(
        method, "compressed-tensors", bits,
        _whole(weights.get("group_size")) or (-1 if weights.get("strategy") == "channel" else None),
        zero_points=weights.get("symmetric") is False, block=_block(weights.get("block_structure")),
        format=form,
        activations=_activations(inputs), ignored=_names(table, "ignore"),
    )  # fmt: skip


def _coverage(group: Mapping[str, Any]) -> int:
    """Groups that name a kind of layer cover more than those that name single modules."""
    targets = group.get("targets") or []
    weights = group.get("weights") or {}
    bits = _bits(weights, 8.0) if isinstance(weights, dict) else 8.0
    return (1000 if "Linear" in targets else 0) + len(targets) - int(bits)


def _scheme(bits: float, kind: str, inputs: object, form: str, group: int | None) -> str:
    if kind == "float" and bits == 4:
        return "mxfp4" if "mxfp4" in form or group == 32 else "nvfp4"
    if kind == "float":
        return "fp8"
    if bits == 8 and inputs:
        return "w8a8"
    wide = _bits(inputs, 8.0) if isinstance(inputs, dict) else 16.0
    return f"w{int(bits)}a{int(wide)}"


def _activations(inputs: object) -> str | None:
    if not isinstance(inputs, dict):
        return None
    return "dynamic" if inputs.get("dynamic") else "static"


def _modelopt(table: Mapping[str, Any]) -> Quantization:
    inner = table.get("quantization")
    table = {**table, **inner} if isinstance(inner, dict) else table
    algorithm = str(table.get("quant_algo") or "").upper()
    ignored = _names(table, "ignore", "exclude_modules")
    if not algorithm and isinstance(table.get("config_groups"), dict):
        found = _compressed({**table, "ignore": list(ignored)})
        return replace(found, checkpoint_method="modelopt", ignored=ignored)
    if "NVFP4" in algorithm or "FP4" in algorithm:
        return Quantization(
            "nvfp4", "modelopt", 4.0, _group(table, 16), activations="dynamic", ignored=ignored,
            kv_dtype=_kv_dtype(table),
        )  # fmt: skip
    if "W4A16" in algorithm or "W4A8" in algorithm:
        method = "awq" if "AWQ" in algorithm else algorithm.lower().split("_")[0]
        return Quantization(method, "modelopt", 4.0, _group(table), ignored=ignored)
    if "INT8" in algorithm:
        return Quantization("w8a8", "modelopt", 8.0, -1, ignored=ignored)
    return Quantization(
        "fp8", "modelopt", 8.0, activations="static", ignored=ignored, kv_dtype=_kv_dtype(table)
    )


def _mxfp4(table: Mapping[str, Any]) -> Quantization:
    return Quantization("mxfp4", "mxfp4", 4.0, 32, ignored=_names(table, "modules_to_not_convert"))


def with_fp4_experts(stored: Quantization) -> Quantization:
    """DeepSeek-V4: `expert_dtype` beside the quantization says that the routed experts are MXFP4."""
    experts = Quantization("mxfp4", "mxfp4", 4.0, 32, targets=("mlp.experts",))
    return replace(stored, others=(*stored.others, experts))


def _quark(table: Mapping[str, Any]) -> Quantization:
    rows = table.get("global_quant_config")
    weight = rows.get("weight") if isinstance(rows, dict) else None
    weight = weight if isinstance(weight, dict) else {}
    kind, group = str(weight.get("dtype") or "fp8_e4m3"), _whole(weight.get("group_size"))
    ignored = _names(table, "exclude")
    if kind == "fp4":
        return Quantization("mxfp4", "quark", 4.0, group or 32, ignored=ignored)
    if kind in ("int4", "uint4"):
        return Quantization("w4a16", "quark", 4.0, group, zero_points=kind == "uint4", ignored=ignored)
    if kind == "int8":
        return Quantization("w8a8", "quark", 8.0, -1, ignored=ignored)
    return Quantization("fp8", "quark", 8.0, format=kind, activations="static", ignored=ignored)


def _ascend(table: Mapping[str, Any]) -> Quantization:
    """ModelSlim's description, whole or as a short note in config.json."""
    written = [str(table.get("quantize") or ""), *(v for v in table.values() if isinstance(v, str))]
    words = " ".join(written).lower()
    method, bits = ("w4a8", 4.0) if "w4a8" in words else ("w4a16", 4.0) if "w4a16" in words else ("w8a8", 8.0)
    floats = [n.removesuffix(".weight") for n, v in table.items() if v == "FLOAT" and n.endswith(".weight")]
    return Quantization(
        method, "modelslim", bits, _group(table, -1), format="modelslim",
        activations="dynamic" if "dynamic" in words else "static",
        ignored=(*_names(table, "ignore", "modules_to_not_convert"), *floats),
    )  # fmt: skip


def _weight_only(method: str, bits: float) -> Callable[[Mapping[str, Any]], Quantization]:
    def read(table: Mapping[str, Any]) -> Quantization:
        name = str(table.get("quant_method") or method)
        ignored = _names(table, "modules_to_not_convert", "skip_modules", "ignore")
        return Quantization(method, name, _bits(table, bits), _group(table, None), ignored=ignored)

    return read


def _auto_round(table: Mapping[str, Any]) -> Quantization:
    packing = str(table.get("packing_format") or "auto_round:auto_gptq")
    return _awq(table) if "awq" in packing else _gptq(table)


READERS: dict[str, Callable[[Mapping[str, Any]], Quantization]] = {
    "gptq": _gptq, "gptq_marlin": _gptq, "awq": _awq, "awq_marlin": _awq, "bitsandbytes": _bitsandbytes,
    "fp8": _fp8, "finegrained_fp8": _fp8, "fbgemm_fp8": _fbgemm, "compressed-tensors": _compressed,
    "compressed_tensors": _compressed, "modelopt": _modelopt, "modelopt_fp4": _modelopt, "mxfp4": _mxfp4,
    "quark": _quark, "ascend": _ascend, "modelslim": _ascend, "auto-round": _auto_round,
    "auto_round": _auto_round, "intel/auto-round": _auto_round, "torchao": _weight_only("int8", 8.0),
    "hqq": _weight_only("hqq", 4.0),
    "eetq": _weight_only("int8", 8.0), "quanto": _weight_only("int8", 8.0), "aqlm": _weight_only("aqlm", 2.0),
    "higgs": _weight_only("higgs", 4.0), "vptq": _weight_only("vptq", 2.0), "spqr": _weight_only("spqr", 3.0),
    "bitnet": _weight_only("bitnet", 2.0), "experts_int8": _weight_only("int8", 8.0),
}  # fmt: skip


def _guess(table: Mapping[str, Any]) -> str:
    """The dialect of a table that does not name its own."""
    if table.get("load_in_4bit") or table.get("load_in_8bit"):
        return "bitsandbytes"
    if "quant_algo" in table or "quantization" in table:
        return "modelopt"
    if "config_groups" in table:
        return "compressed-tensors"
    if "w_bit" in table or "zero_point" in table:
        return "awq"
    return "gptq" if "desc_act" in table else ""


def read(table: Mapping[str, Any] | None, path: str = "config.json") -> Quantization | None:
    """What `quantization_config` says; None where nothing is quantized."""
    if not table:
        return None
    name = str(table.get("quant_method") or _guess(table)).lower()
    reader = READERS.get(name)
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise ModelUnreadable(
            f"{path}: unknown quant_method {name[:40]!r}", path=path,
            field="quantization_config.quant_method", hint=f"known: {known}",
        )  # fmt: skip
    try:
        return reader(table)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelUnreadable(
            f"{path}: quantization_config of {name!r} is malformed: {error}",
            path=path,
            field="quantization_config",
        ) from error
