"""Every code block of README and docs is run, or says why not: docs/blocks.py draws the table."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from inspect import CO_COROUTINE
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from memserve import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUESTS = '{"id": "q1", "prompt": "What is the capital of France?"}\n{"id": "q2", "prompt": "A river"}\n'
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Commands that change the machine or need another: what they are given is looked at, they are not run.
OTHERS = (
    "pip", "uv", "git", "docker", "sbatch", "kubectl", "ray", "pre-commit", "vllm", "curl", "ssh", "rsync",
    "sudo", "pytest", "zensical",
)  # fmt: skip
SHIM = '#!/bin/sh\necho "$(basename "$0") $*" >> "$STAGE/called"\n'


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


TOOL = _load(ROOT / "docs" / "blocks.py")
EVERY = TOOL.every()
STAGED = [block for block in EVERY if block.kind in {"run", "stand-in"}]


def _cases(*languages: str) -> list[Any]:
    return [
        pytest.param(b, id=f"{b.page}:{b.line}", marks=[pytest.mark.slow] if "slow" in b.how else [])
        for b in STAGED
        if b.language in languages
    ]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with _load(HERE / "loopback.py").served() as address:
        yield address


@pytest.fixture
def stage(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder as the pages suppose it, keys that open nothing, and the loopback server as provider."""
    (tmp_path / "requests.jsonl").write_text(REQUESTS)
    for name in ("examples", "benchmarks", "docs", "tests", "tools", "src", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for key in KEYS:
        monkeypatch.setenv(key, "key-of-a-page")
    for key, value in {
        "OPENAI_BASE_URL": f"http://{server}/v1", "STAGE": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'examples' / 'plugin'}",
        "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(
        folder=tmp_path, words=lambda text: re.sub(r"127\.0\.0\.1:\d{4,5}\b", server, text)
    )


@pytest.fixture
def standing_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Every engine's name opens the stand-in."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin"))
    monkeypatch.syspath_prepend(str(HERE))
    known = registry._entries()
    registry.forget()
    stand_ins = {name: registry.Entry(name, "standin:backend") for name in known}

    def begin() -> None:
        monkeypatch.setattr(registry, "_entries", lambda: stand_ins)
        registry.find.cache_clear()
        import memserve_toy.model

        monkeypatch.setattr(memserve_toy.model, "CONTEXT", 4096)

    yield begin
    registry.find.cache_clear()


def _python(block: Any, text: str, names: dict[str, Any]) -> None:
    padded = "\n" * block.line + text
    code = compile(padded, str(ROOT / block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)


PAGES = sorted({block.page for block in STAGED if block.language == "python"})


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_python_runs(page: str, stage: Any, standing_in: Any) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in [b for b in STAGED if b.page == page and b.language == "python"]:
        if block.kind == "stand-in":
            standing_in()
        exec(compile(stage.words(block.before), "before", "exec"), names)
        _python(block, stage.words(block.text), names)


@pytest.mark.slow
@pytest.mark.parametrize("block", _cases("bash"))
def test_a_pages_commands_run(block: Any, stage: Any) -> None:
    shims = stage.folder / "bin"
    shims.mkdir()
    for name in OTHERS:
        shim = shims / name
        shim.write_text(SHIM)
        shim.chmod(0o755)
    (shims / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (shims / "python").chmod(0o755)
    world = {**os.environ, "PATH": f"{shims}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    exec(compile(stage.words(block.before), "before", "exec"), {"__name__": "page"})
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", stage.words(block.text)], env=world, cwd=stage.folder, timeout=300,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == block.exit, done.stdout[-2000:] + done.stderr[-2000:]
    called = stage.folder / "called"
    for words in called.read_text().splitlines() if called.exists() else ():
        _look_at(words)


def _look_at(words: str) -> None:
    """What is given to a command that is not run: extras and paths must be there."""
    offered = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for extras in re.findall(r"\[([\w,]+)\]", words) if words.startswith(("pip", "uv")) else ():
        assert set(extras.split(",")) <= set(offered), words
    for path in re.findall(r"(?:^|\s)(\.?/?(?:tests|examples|docs|benchmarks)/[\w./]+)", words):
        assert (ROOT / path).exists(), words


@pytest.mark.parametrize("block", _cases("json", "jsonl", "yaml", "toml"))
def test_a_pages_data_is_well_formed(block: Any) -> None:
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
    elif block.language == "toml":
        tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
        assert tomllib.loads(block.text)
    else:
        lines = block.text.splitlines() if block.language == "jsonl" else [block.text]
        assert all(json.loads(line) is not None for line in lines)


def test_every_block_is_run_or_says_why() -> None:
    known = {"bash", "python", "json", "jsonl", "yaml", "toml"}
    silent = [f"{b.page}:{b.line} {b.language}" for b in STAGED if b.language not in known]
    assert silent == [], "a language that is run, or a comment why not: docs/blocks.py"
    run = [block for block in EVERY if block.kind != "not run"]
    assert len(run) >= 0.7 * len(EVERY)
