"""What is planned is started: a server with the plan's own words, or the same settings in this process."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import memserve
from memserve.engines.environment import requirements
from memserve.errors import BackendMissing, EngineFailed

RECORDER = """#!{python}
import http.server, json, os, sys
words = sys.argv[1:]
with open(os.path.join(os.path.dirname(__file__), "record"), "w") as file:
    json.dump([words, dict(os.environ)], file)
def after(*names):
    return next(words[words.index(name) + 1] for name in names if name in words)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
    def log_message(self, *args): pass
where = after("--host", "--server-name"), int(after("--port", "--server-port"))
http.server.HTTPServer(where, Answer).serve_forever()
"""
QUESTIONS = [
    ("vllm", "qwen3-32b", "2xL4", {}), ("vllm", "qwen3-32b", "2x8xH100", {"concurrency": 300}),
    ("vllm", "llama-70b", "4xV100", {"context": 4096}), ("sglang", "qwen3-32b", "2xL4", {}),
    ("sglang", "llama-70b", "8xH100", {"kv_dtype": "fp8"}), ("lmdeploy", "qwen3-32b", "2xL4", {}),
    ("lmdeploy", "llama-8b", "1xRTX4090", {"quantization": "awq"}), ("llamacpp", "llama-8b", "1xL4", {}),
    ("llamacpp", "llama-8b", "cpu", {"context": 4096}), ("hf", "llama-8b", "1xL4", {}),
    ("hf", "llama-70b", "4xV100", {"quantization": "nf4"}), ("ascend", "qwen3-32b", "8x910B2", {}),
]  # fmt: skip
KEYS = {"lmdeploy": "--api-keys", "sglang": "--config"}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A stand-in for the interpreter of an engine's environment: it records its words and answers."""
    program = tmp_path / "python"
    program.write_text(RECORDER.format(python=sys.executable).replace("{{}}", "{}"))
    program.chmod(0o755)
    return program


def _started(engine: Path, plan: Any, **options: Any) -> tuple[list[str], dict[str, str]]:
    """The engine's words after `-m MODULE`, without what memserve adds for address and key; its variables."""
    with memserve.generator(plan, server=True, python=str(engine), **options):
        words, env = json.loads(Path(engine.parent / "record").read_text())
    words = words[2:] if words[0] == "-m" else words
    added = words.index("--server-name" if "--server-name" in words else "--host")
    assert len(words[added:]) == (6 if plan.backend in KEYS else 4)
    return words[:added], env


def _expected(command: list[str]) -> list[str]:
    return command[3:] if command[0] == "python" else command[1:]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("backend", "model", "gpus", "asked"), QUESTIONS)
def test_a_server_has_the_plans_own_words(
    engine: Path, backend: str, model: str, gpus: str, asked: dict[str, Any]
) -> None:
    plan = memserve.plan.best(model, gpus, backend=backend, **asked)
    words, env = _started(engine, plan)
    assert words == _expected(plan.command)
    assert plan.env.items() <= env.items()


def test_options_beside_the_plan_win(engine: Path) -> None:
    plan = memserve.plan.best("qwen3-32b", "2xL4", backend="vllm")
    words, _ = _started(engine, plan, max_model_len=4096, enforce_eager="true")
    wanted = _expected(plan.command)
    wanted[wanted.index("--max-model-len") + 1] = "4096"
    assert words == [*wanted, "--enforce-eager"]


class _Recorded(RuntimeError):
    pass


def _recording(into: dict[str, Any]) -> Any:
    def start(**given: Any) -> None:
        into.update(given)
        raise _Recorded("recorded")

    return start


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **holds: Any) -> None:
    """A stand-in module, with the packages above it."""
    for depth in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:depth])
        if part not in sys.modules:
            monkeypatch.setitem(sys.modules, part, ModuleType(part))
    for key, value in holds.items():
        monkeypatch.setattr(sys.modules[name], key, value, raising=False)


def _options(plan: Any, *names: str) -> dict[str, str]:
    command = plan.command
    return {name: command[command.index("--" + name) + 1] for name in names}


def test_vllm_in_this_process_has_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    names = ["tensor_parallel_size", "dtype", "max_model_len", "quantization", "gpu_memory_utilization"]
    _module(monkeypatch, "vllm", LLM=_recording(seen))
    _module(monkeypatch, "vllm.engine.arg_utils", EngineArgs=make_dataclass("EngineArgs", names))
    _module(monkeypatch, "vllm.platforms", current_platform=SimpleNamespace(is_cpu=lambda: False))
    plan = memserve.plan.best("qwen3-32b", "2xL4", backend="vllm")
    with pytest.raises(EngineFailed, match="recorded"):
        memserve.generator(plan, dtype="float16")
    assert seen.pop("model") == plan.command[2]
    wanted = _options(plan, "tensor-parallel-size", "max-model-len")
    for name, value in wanted.items():
        assert seen[name.replace("-", "_")] == int(value)
    assert seen["dtype"] == "float16"


def test_sglang_in_this_process_has_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from memserve_sglang import backend
    from memserve_sglang.host import start

    seen: dict[str, Any] = {}
    names = ["tp_size", "dtype", "context_length", "mem_fraction_static", "log_level", "skip_tokenizer_init"]
    _module(monkeypatch, "sglang", Engine=_recording(seen))
    _module(monkeypatch, "sglang.srt.server_args", ServerArgs=make_dataclass("ServerArgs", names))
    plan = memserve.plan.best("qwen3-32b", "2xL4", backend="sglang")
    options = backend.plan_options(plan.to_dict())
    with pytest.raises(EngineFailed, match="recorded"):
        start(options.pop("model"), options)  # which runs in a child of its own, where no stand-in reaches
    wanted = _options(plan, "tp-size", "dtype", "context-length", "model-path")
    assert {name: str(seen[name.replace("-", "_")]) for name in wanted} == wanted


def test_llamacpp_answers_several_at_once_through_its_own_server(
    monkeypatch: pytest.MonkeyPatch, engine: Path
) -> None:
    engine.rename(engine.parent / "llama-server")
    monkeypatch.setenv("PATH", f"{engine.parent}:{os.environ['PATH']}")
    plan = memserve.plan.best("llama-8b", "cpu", backend="llamacpp", concurrency=3)
    with memserve.generator(plan, server=True):
        words = json.loads((engine.parent / "record").read_text())[0]
    assert words[: words.index("--host")] == plan.command[1:]


def test_llamacpp_in_this_process_has_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    (tmp_path / "model-Q8_0.gguf").write_bytes(b"GGUF")
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")

    class Llama:
        def __init__(self, model_path: str, n_ctx: int, n_gpu_layers: int, verbose: bool) -> None:
            seen.update(model_path=model_path, n_ctx=n_ctx, n_gpu_layers=n_gpu_layers)
            raise _Recorded("recorded")

    def fetched(repository: str, allow_patterns: list[str]) -> str:
        seen.update(repository=repository, patterns=allow_patterns)
        return str(tmp_path)

    _module(monkeypatch, "llama_cpp", Llama=Llama, llama_supports_gpu_offload=lambda: True)
    _module(monkeypatch, "huggingface_hub", snapshot_download=fetched)
    plan = memserve.plan.best("llama-8b", "1xL4", backend="llamacpp")
    with pytest.raises(memserve.errors.ModelUnreadable, match="recorded"):
        memserve.generator(plan)
    wanted = _options(plan, "hf_model_repo_id", "model", "n_ctx", "n_gpu_layers")
    assert [wanted["hf_model_repo_id"], [wanted["model"]]] == [seen["repository"], seen["patterns"]]
    assert seen["model_path"] == str(tmp_path / "model-Q8_0.gguf")
    assert [int(wanted["n_ctx"]), int(wanted["n_gpu_layers"])] == [seen["n_ctx"], seen["n_gpu_layers"]]


def test_transformers_in_this_process_has_the_same_settings() -> None:
    from memserve_hf import backend
    from memserve_hf.options import read

    plan = memserve.plan.best("llama-70b", "8xL4", backend="hf", quantization="int8")
    given = backend.plan_options(plan.to_dict())
    assert given.pop("model") == plan.command[2]
    given.pop("env", None)
    options = read(given)
    assert (options.dtype, options.context, options.quantization) == (plan.dtype, plan.context, "int8")
    assert options.device_map == ("auto" if plan.pipeline_parallel > 1 else None)


@pytest.mark.parametrize(("backend", "model", "gpus", "asked"), QUESTIONS)
def test_an_engine_that_is_not_here_is_installed_by_the_plans_own_line(
    backend: str, model: str, gpus: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = memserve.plan.best(model, gpus, backend=backend, **asked)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendMissing) as caught:
        memserve.generator(plan, server=True)
    assert caught.value.install == plan.install
    assert plan.install in str(caught.value)


@pytest.mark.parametrize(("backend", "model", "gpus", "asked"), QUESTIONS)
def test_the_planners_own_install_lines_are_read(
    backend: str, model: str, gpus: str, asked: dict[str, Any]
) -> None:
    plan = memserve.plan.best(model, gpus, backend=backend, **asked)
    variables, words = requirements(plan.install)
    assert all("=" in word or word.startswith("-") or word.isalnum() or ":" in word for word in words), words
    assert set(variables) <= {"CMAKE_ARGS", "VLLM_TARGET_DEVICE"}
