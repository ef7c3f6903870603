"""What llama.cpp would crash on, or take all memory for, is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memserve import errors
from memserve_llamacpp import engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def crowded(monkeypatch):
    monkeypatch.setattr("memserve.hardware.detection.host.available", lambda: 3 * engine.GIB)
    monkeypatch.setattr(engine, "_token_bytes", lambda spec: 1 << 20)
    monkeypatch.setattr(engine, "_described", lambda path: type("Spec", (), {"max_context": 8192})())


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_a_context_that_fits_is_let_through(crowded, gguf):
    engine.refuse_too_large(gguf, 2048)


@pytest.mark.parametrize("context", [0, 4096, 10**9])
def test_a_context_that_does_not_fit_names_one_that_does(crowded, gguf, context):
    with pytest.raises(errors.DoesNotFit, match="n_ctx=2816 fits"):
        engine.refuse_too_large(gguf, context)


def test_weights_that_do_not_fit_name_the_planner(crowded, tmp_path):
    for part in (1, 2):
        with (tmp_path / f"m-0000{part}-of-00002.gguf").open("wb") as file:
            file.truncate(2 * engine.GIB)
    with pytest.raises(errors.DoesNotFit, match=r"4\.0 GiB for its weights.*memserve\.plan"):
        engine.refuse_too_large(tmp_path / "m-00001-of-00002.gguf", 1)


@pytest.mark.parametrize("context", ["many", -5, 2.5])
def test_what_is_no_context_is_refused(gguf, context):
    with pytest.raises(errors.InvalidInput, match="n_ctx"):
        engine.refuse_too_large(gguf, context)


@pytest.mark.engine("llamacpp")
def test_an_adapter_that_does_not_belong_is_refused_before_it_crashes():
    sys.path.insert(0, str(ROOT / "tests" / "engines"))
    from make import home

    [model] = (home() / "weights-1" / "smollm2-gguf").glob("*.gguf")
    for adapter in ("/nowhere", str(model)):
        code = f"import memserve; memserve.generator({str(model)!r}, backend='llamacpp', n_ctx=64, lora_path={adapter!r})"  # noqa: E501
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 1
        assert "ModelUnreadable" in done.stderr
        assert "does not belong" in done.stderr
