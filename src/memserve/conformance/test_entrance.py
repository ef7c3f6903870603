"""Importing costs nothing; a missing engine is told in one line with the command that installs it."""

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = (
    "torch", "transformers", "vllm", "sglang", "torch_npu", "bitsandbytes", "httpx", "aiohttp", "requests",
    "pydantic", "numpy", "openai",
)  # fmt: skip
ENGINES = (
    "torch", "transformers", "vllm", "sglang", "lmdeploy", "llama_cpp", "openvino_genai", "ctranslate2",
    "onnxruntime", "torch_npu",
)  # fmt: skip

_WITHOUT = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import memserve
try:
    memserve.{opener}({model!r}, backend={backend!r}, **{options!r}).close()
    print(json.dumps(["opened", ""]))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def _run(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _found_elsewhere(target: Any) -> None:
    """Skip where the backend was registered in this process alone, by no entry point."""
    names = _run("import memserve, json; print(json.dumps(memserve.registry.names()))")
    if target.backend not in names:
        pytest.skip("capability backend: it has no entry point that another process would find")


def test_importing_memserve_loads_nothing_heavy(target: Any) -> None:
    loaded = _run("import memserve, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert [name for name in HEAVY if name in loaded] == []


def test_finding_the_backend_loads_no_engine(target: Any) -> None:
    _found_elsewhere(target)
    code = f"import memserve, sys, json; memserve.registry.find({target.backend!r}).capabilities"
    loaded = _run(f"{code}; print(json.dumps(sorted(sys.modules)))")
    assert [name for name in ENGINES if name in loaded] == []


def test_a_missing_engine_names_the_command_that_installs_it(target: Any) -> None:
    _found_elsewhere(target)
    opener = "generator" if "generate" in target.tasks() else "embedder"
    code = _WITHOUT.format(
        absent=ENGINES, opener=opener, model=target.model, backend=target.backend,
        options=dict(target.options),
    )  # fmt: skip
    kind, words = _run(code)
    assert kind in ("BackendMissing", "opened"), words
    assert kind == "opened" or "pip install" in words
    assert "\n" not in words
