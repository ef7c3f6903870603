"""A stand-in for the package `sglang`: an engine that counts, to prove the room's host process with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = """
import os, subprocess, sys, time
from types import SimpleNamespace as Bag
__version__ = "0.0.1"
class Engine:
    def __init__(self, model_path, **options):
        if model_path.endswith("slow"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            open(os.environ["NOTE"], "w").write(str(os.getpid()))
            time.sleep(600)
        if model_path.endswith("broken"):
            raise RuntimeError("Not enough memory. Please try to increase --mem-fraction-static.\\nmore")
        config = Bag(dtype="float32", vocab_size=8, context_len=64)
        self.tokenizer_manager = Bag(model_config=config)
        self.server_args = Bag(device="cpu", enable_deterministic_inference=False, tokenizer_path=None,
                               trust_remote_code=False)
    def generate(self, stream=False, **words):
        if words.get("die"):
            os._exit(3)
        if stream:
            return iter([{"text": "a"}, {"text": "ab"}, {"text": "abc"}])
        return [{"pid": os.getpid(), **words}]
"""
ARGS = """
from dataclasses import dataclass
@dataclass
class ServerArgs:
    device: str = "cpu"
    tp_size: int = 1
    context_length: int = 0
    log_level: str = ""
    mem_fraction_static: float = 0.0
"""


@pytest.fixture
def sglang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder; the stand-in is found by this process and by hosts."""
    site = tmp_path / "site" / "sglang"
    (site / "srt").mkdir(parents=True)
    (site / "__init__.py").write_text(ENGINE)
    (site / "srt" / "__init__.py").write_text("")
    (site / "srt" / "server_args.py").write_text(ARGS)
    import os
    import sys

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.parent), *filter(None, sys.path)]))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return model
