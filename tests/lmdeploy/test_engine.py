"""LMDeploy's room without LMDeploy: what it refuses, and the words with which it starts the server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import BackendMissing, EngineFailed, InvalidInput, Unsupported

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_engine_names_the_install_line() -> None:
    with pytest.raises(BackendMissing, match=r"\[lmdeploy\]"):
        memserve.generator("some/model", backend="lmdeploy")


def test_it_is_a_server_only_and_generates_only() -> None:
    with pytest.raises(Unsupported, match="server=False"):
        memserve.generator("some/model", backend="lmdeploy", server=False)
    with pytest.raises(Unsupported, match="embed"):
        memserve.embedder("some/model", backend="lmdeploy")
    with pytest.raises(InvalidInput, match="needs a model"):
        memserve.generator(None, backend="lmdeploy")


def test_the_server_is_started_on_loopback_with_a_key_and_the_options(tmp_path: Path) -> None:
    """A stand-in interpreter prints its words and dies; the error shows them, with the key masked."""
    python = tmp_path / "python"
    python.write_text(f'#!{sys.executable}\nimport sys\nprint("words", *sys.argv[1:])\nsys.exit(7)\n')
    python.chmod(0o755)
    with pytest.raises(EngineFailed, match="exit code 7") as caught:
        memserve.generator("some/model", backend="lmdeploy", python=str(python), session_len=4096, tp=2)
    said = str(caught.value)
    assert "-m lmdeploy serve api_server some/model --session-len 4096 --tp 2" in said
    assert "--server-name 127.0.0.1 --server-port" in said
    assert "--api-keys ***" in said
