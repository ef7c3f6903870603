"""Real start-ups as launch commands with what they printed: what `memserve.plan.check` is held against.

Rows are read from `truth/` in the folder that MEMSERVE_SHARED names (default: ../shared beside the checkout);
without it the copy in tests/data/memory is used, which holds the same figures and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memserve.hardware.catalogue import resolve

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("MEMSERVE_SHARED", ROOT.parent / "shared"))
COPY = ROOT / "tests" / "data" / "memory"
ENGINES = {"vllm": "vLLM", "vllm-ascend": "vLLM-Ascend", "sglang": "SGLang"}
CONFIG = "facts/configs/{}/config.json"
OUTCOMES = {"ran": "runs", "ok": "runs", "refused": "refused", "oom": "out_of_memory", "failed": "failed"}

OTHERS = {
    "gt-148": "an image with triton_kernels, which its release does not bring",
    "gt-214": "its source's 126 blocks with 8 sequences and no pictures leave -0.2 GiB for all else at the "
    "default utilization: another was said",
}
"""Starts whose environment is not the release's own."""
SEEN = {
    "gt-043": "--language-model-only", "gt-210": "--kv-cache-dtype auto", "gt-211": "--kv-cache-dtype auto",
    "gt-100": "--max-num-seqs 64",
}  # fmt: skip
"""What a log shows of its command against the row: the language model's weights alone; 491/341 and 580/341
of a request, which are pages of 784 tokens and so 16 bit; 2.62 GiB of an encoder that takes 41.7 MB for each
sequence, and graphs of 0.13 GiB."""

CHECKPOINT = {"gt-165": {"num_key_value_heads": 16}}
"""What a checkpoint's config said when it was started: vLLM's pull 7139 and ollama's issue 6303 of August
2024 tell of 16 heads before and 8 after."""


@dataclass(frozen=True)
class Row:
    """One start. Figures in GiB per card, None where the log is silent."""

    id: str
    engine: str
    version: str
    model: str
    config: str
    command: tuple[str, ...]
    """With MODEL where the model goes."""
    gpus: str
    outcome: str
    memory_gib: float | None = None
    free_gib: float | None = None
    """What of a card was free when it started, where the log says."""
    scored: bool = True
    weights: float | None = None
    activation: float | None = None
    non_torch: float | None = None
    kv_cache: float | None = None
    kv_tokens: int | None = None


def rows(name: str) -> list[Row]:
    """The rows of `h100` (vLLM 0.19.0) or of `logs` (public logs of all engines)."""
    if (SHARED / "truth").is_dir():
        return _h100() if name == "h100" else _logs()
    listed = json.loads((COPY / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return [Row(**{**row, "command": tuple(row["command"])}) for row in listed]


def written(row: Row) -> Row:
    """The row without what its log shows of the command."""
    return replace(row, command=row.command[: -len(SEEN[row.id].split())])


def config(row: Row) -> dict[str, Any]:
    """The config.json of a row's model."""
    if (SHARED / "truth").is_dir():
        found: dict[str, Any] = json.loads((SHARED / row.config).read_text(encoding="utf-8"))
        return {**found, **CHECKPOINT.get(row.id, {})}
    configs: dict[str, dict[str, Any]] = json.loads((COPY / "configs.json").read_text(encoding="utf-8"))
    return configs[row.config]


def _read(name: str) -> list[dict[str, Any]]:
    text = (SHARED / "truth" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _configs() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SHARED / "truth/configs_of_cases.json").read_text(encoding="utf-8"))
    return found


def _h100() -> list[Row]:
    configs = _configs()
    return [
        Row(
            id=f"h100-{number}", engine="vllm", version=row["engine_version"], model=row["model"],
            config=configs.get(row["model"]) or CONFIG.format(row["model"].replace("/", "--")),
            command=_vllm(row), gpus=f"{row['tp'] * row['pp'] * row['dp']}xH100",
            memory_gib=row["init_total_memory_gib"], outcome=OUTCOMES[row["status"]],
            weights=row["weight_memory_gib"], activation=row["activation_memory_gib"],
            non_torch=row["non_torch_forward_gib"], kv_cache=row["kv_cache_memory_gib"],
            kv_tokens=row["kv_cache_tokens"],
        )
        for number, row in enumerate(_read("memory_vllm019_h100.jsonl"))
    ]  # fmt: skip


def _logs() -> list[Row]:
    configs = _configs()
    found = []
    for row in _read("memory_public_logs.jsonl"):
        path = configs["_rows"].get(row["id"]) or configs.get(row["model_id"])
        if row["engine"] in ENGINES and row["card"] and path:
            found.append(_log(row, path))
    return found


def _log(row: dict[str, Any], path: str) -> Row:
    seen = row["observed"]
    return Row(
        id=row["id"], engine=row["engine"], version=row["engine_version"] or "unknown", model=row["model_id"],
        config=path, command=_command(row),
        gpus=_machine(row), memory_gib=row["total_gpu_memory_gib"], free_gib=_free(row),
        outcome=OUTCOMES[row["outcome"]],
        scored=row["tier"] in "AB" and not row.get("unscored") and not _others(row),
        weights=seen.get("weights_gib_per_gpu"),
        activation=seen.get("activation_peak_gib"), non_torch=seen.get("non_torch_gib"),
        kv_cache=seen.get("kv_cache_gib_per_gpu"), kv_tokens=seen.get("kv_cache_tokens"),
    )  # fmt: skip


def _free(row: dict[str, Any]) -> float | None:
    """As a detected machine would tell it: other processes' share is no part of a command."""
    found = re.search(r"Free memory on device \(([\d.]+)/[\d.]+ GiB\)", row.get("quote") or "")
    return float(found[1]) if found else None


def _others(row: dict[str, Any]) -> bool:
    """Something ran beside it, as a draft model, that the row's flags do not hold."""
    return row["id"] in OTHERS or (
        row["engine"] != "sglang"
        and "draft" in row["notes"]
        and "speculative" not in (row.get("flags") or "")
    )


def _command(row: dict[str, Any]) -> tuple[str, ...]:
    """The variables before the command, the command, and the flags that no field holds."""
    variables = shlex.split(row.get("env") or "")
    words = _sglang(row) if row["engine"] == "sglang" else _vllm(row)
    said = f"{row.get('flags') or ''} {SEEN.get(row['id'], '')}"
    return (*variables, *words, *shlex.split(said))


def _machine(row: dict[str, Any]) -> str:
    cards = row["card_count"] or row["tp"] * row["pp"]
    name = resolve(row["card"])[0].name
    node = 16 if name == "A3" else 8
    return f"{cards // node}x{node}x{name}" if cards > node and cards % node == 0 else f"{cards}x{name}"


def _flags(row: dict[str, Any], names: dict[str, str]) -> list[str]:
    words = []
    for field, flag in names.items():
        value = row.get(field)
        if value is not None and not (isinstance(value, str) and (value == "auto" or " " in value)):
            words += [flag, str(value).removeprefix("torch.")]
    return words


def _vllm(row: dict[str, Any]) -> tuple[str, ...]:
    names = {
        "tp": "--tensor-parallel-size", "pp": "--pipeline-parallel-size", "max_model_len": "--max-model-len",
        "gpu_memory_utilization": "--gpu-memory-utilization", "max_num_seqs": "--max-num-seqs",
        "max_num_batched_tokens": "--max-num-batched-tokens", "dtype": "--dtype",
        "kv_cache_dtype": "--kv-cache-dtype", "quantization": "--quantization",
    }  # fmt: skip
    eager = ["--enforce-eager"] if row.get("enforce_eager") else []
    return ("vllm", "serve", "MODEL", *_flags(row, names), *eager)


def _sglang(row: dict[str, Any]) -> tuple[str, ...]:
    names = {
        "tp": "--tp-size", **({"pp": "--pp-size"} if row["pp"] > 1 else {}),
        "max_model_len": "--context-length", "dtype": "--dtype",
        "mem_fraction_static": "--mem-fraction-static", "max_num_seqs": "--max-running-requests",
        "max_num_batched_tokens": "--chunked-prefill-size", "kv_cache_dtype": "--kv-cache-dtype",
    }  # fmt: skip
    groups = re.search(r"(?:dp_size=|DP attention )(\d+)", row["notes"])
    attention = ["--dp-size", groups[1], "--enable-dp-attention"] if groups else []
    eager = ["--disable-cuda-graph"] if row["enforce_eager"] else []
    start = ("python", "-m", "sglang.launch_server", "--model-path", "MODEL")
    return (*start, *_flags(row, names), *attention, *eager)


def copy() -> None:
    """Write the copy that tests use: figures and configs, no text of the logs."""
    COPY.mkdir(parents=True, exist_ok=True)
    configs: dict[str, Any] = {}
    for name in ("h100", "logs"):
        listed = rows(name)
        configs.update({row.config: config(row) for row in listed})
        table = {
            "note": "Figures of real starts, GiB per card. Built by benchmarks/memory.py --copy.",
            "source": _SOURCES[name],
            "rows": [{k: v for k, v in asdict(row).items() if v is not None} for row in listed],
        }
        (COPY / f"{name}.json").write_text(_lines(table), encoding="utf-8")
    text = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(configs.items()))
    (COPY / "configs.json").write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


_SOURCES = {
    "h100": "llm-d-planner's start-ups of vLLM 0.19.0 on H100-80GB (docs/accuracy/vllm-v0.19.0)",
    "logs": "public logs and issues of vLLM 0.1 to 0.27, SGLang 0.4 to 0.5, vLLM-Ascend, 2023-07 to 2026-09",
}


def _lines(table: dict[str, Any]) -> str:
    listed = ",\n".join(json.dumps(row) for row in table["rows"])
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(table[key])}" for key in ("note", "source"))
    return f'{{\n{head},\n"rows": [\n{listed}\n]\n}}\n'
