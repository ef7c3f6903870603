"""Starts vLLM's `LLM` in this process: arguments checked, environment set, failures put in plain words."""

import gc
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, cast

from memserve.errors import EngineFailed, InvalidInput, ModelUnreadable
from memserve.missing import missing
from memserve.options import named, value
from memserve_vllm.launch import RANKS


@cache
def _rows() -> dict[str, Any]:
    text = Path(__file__).with_name("dialect.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version; local parts and pre-releases are left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def spelling(kind: str, version: str) -> dict[str, Any]:
    """The row that holds for a release; the oldest row for anything older."""
    rows = _rows()[kind]
    fitting = (row for row in rows if release(version) >= release(row["since"]))
    return cast("dict[str, Any]", next(fitting, rows[-1]))


NAME = "adapter"
"""What the adapter is called, in vLLM and as a model of its server."""


def limits(path: str) -> dict[str, Any]:
    """The engine arguments that one adapter of that rank needs."""
    rank = _rank(path)
    held = next((one for one in RANKS if one >= max(rank, 8)), None)
    if held is None:
        raise InvalidInput(f"adapter {path} has rank {rank}; vLLM takes up to {RANKS[-1]}")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": held}


def request(path: str | None) -> Any:
    """What goes with each prompt; None where there is no adapter."""
    if path is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest(NAME, 1, str(path))


def _rank(path: str) -> int:
    """From the adapter's own config; a hub id is fetched by vLLM itself, so it gets the usual room."""
    folder = Path(path)
    if not folder.is_dir():
        if folder.is_absolute() or path.startswith((".", "~")):
            raise InvalidInput(f"option adapter: no folder {path}")
        return 64
    config = folder / "adapter_config.json"
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
        kind, rank = told.get("peft_type", "LORA"), int(told["r"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"option adapter: {config} names no rank: {error}") from error
    if kind != "LORA":
        raise InvalidInput(f"option adapter: vLLM takes LORA adapters, not {kind}")
    return rank


CPU_KV_GIB = "1"
"""vLLM's CPU build would take 4 GiB or a share of all memory; one machine often holds several models."""


def arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments of the installed vLLM from keywords or strings; unknown names are refused."""
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    return {name: value(word) for name, word in named("vllm", options, known).items()}


def start(model: str, options: Mapping[str, Any], **more: Any) -> Any:
    """A running `vllm.LLM`."""
    asked = {**more, **arguments(options)}
    _environment(_ranks(asked))
    proven(model, trust=bool(asked.get("trust_remote_code")))
    from vllm import LLM

    try:
        llm = LLM(model=model, **{**_defaults(asked), **asked})
    except (ValueError, OSError, RuntimeError, TypeError, AssertionError, ImportError, KeyError) as error:
        raise _plain(error, model) from error
    _alive.add(id(llm))
    return llm


def proven(model: str, *, trust: bool) -> None:
    """Refuse a folder that cannot work before vLLM starts processes for it."""
    path = Path(model)
    if not path.exists() and (path.is_absolute() or model.startswith((".", "~"))):
        raise ModelUnreadable(f"no folder {model}", path=model)
    if not path.is_dir():
        return
    config = path / "config.json"
    if not config.exists() and not any(path.glob("*.gguf")):
        raise ModelUnreadable(f"{model} has no config.json", path=str(config))
    _readable(config, trust)


def _readable(config: Path, trust: bool) -> None:
    if not config.exists():
        return
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelUnreadable(f"{config} is not JSON: {error}", path=str(config)) from error
    if isinstance(content, dict) and content.get("auto_map") and not trust and not content.get("model_type"):
        raise ModelUnreadable(
            f"{config} needs code of its own to load", path=str(config), field="auto_map",
            hint="pass trust_remote_code=True if you trust it",
        )  # fmt: skip


def _environment(ranks: int) -> None:
    """Quiet; on a CPU small, in this process, and each rank on cores of its own."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_GIB)
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        if ranks > 1:  # else vLLM wants a NUMA node for each
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", _cores(ranks))


def _ranks(asked: Mapping[str, Any]) -> int:
    return int(asked.get("tensor_parallel_size") or 1) * int(asked.get("pipeline_parallel_size") or 1)


def _cores(ranks: int) -> str:
    """This process's cores dealt out to ranks, in vLLM's spelling; one is shared where there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    dealt = [cores[rank::ranks] or cores[-1:] for rank in range(ranks)]
    return "|".join(",".join(map(str, own)) for own in dealt)


def _defaults(asked: Mapping[str, Any]) -> dict[str, Any]:
    """On a CPU with one rank: no extra process, no compiler run before the first token."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or _ranks(asked) > 1:
        return {}
    return {"distributed_executor_backend": "uni", "enforce_eager": True}


def _plain(error: Exception, model: str) -> Exception:
    words = str(error).strip() or type(error).__name__
    first = next((line for line in words.splitlines() if line.strip()), words)[:400]
    if isinstance(error, ImportError):
        return missing("vllm", first)
    if isinstance(error, (OSError, KeyError)):
        return ModelUnreadable(f"vLLM cannot read {model}: {first}", path=model)
    if "unexpected keyword" in first or "validation error" in words:
        return InvalidInput(f"vLLM refuses its options: {words[:400]}")
    return EngineFailed(f"vLLM did not start with {model}: {first}")


_alive: set[int] = set()
"""Engines of this process: vLLM's groups of ranks are global, so only the last one takes them down."""


def stop(llm: Any) -> None:
    """End the engine's processes and give its memory back."""
    _alive.discard(id(llm))
    core = getattr(llm.llm_engine, "engine_core", None)
    if core is not None and hasattr(core, "shutdown"):
        with _groups_kept() if _alive else nullcontext():
            core.shutdown()
    del core, llm
    gc.collect()


@contextmanager
def _groups_kept() -> Iterator[None]:
    """While other engines live: an engine's own shutdown would take down everybody's groups of ranks."""
    from vllm.v1.engine import core

    name = "cleanup_dist_env_and_memory"
    kept = getattr(core, name, None)
    if kept is not None:
        setattr(core, name, lambda *_, **__: None)
    try:
        yield
    finally:
        if kept is not None:
            setattr(core, name, kept)
