"""The house is built one way, and entering it is cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch", "transformers", "vllm", "sglang", "torch_npu", "bitsandbytes", "httpx", "aiohttp", "requests",
    "pydantic", "numpy", "openai", "rich",
)  # fmt: skip


def _modules_after(statement: str) -> list[str]:
    code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_imports_run_one_way() -> None:
    """The contracts stand in pyproject.toml under [tool.importlinter]."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_memserve_loads_nothing_heavy() -> None:
    loaded = _modules_after("import memserve")
    assert [name for name in HEAVY if name in loaded] == []


def test_planning_loads_no_engine() -> None:
    statement = "import memserve; memserve.plan.best('llama-70b', '4xV100')"
    loaded = _modules_after(statement)
    assert [name for name in HEAVY if name in loaded] == []
