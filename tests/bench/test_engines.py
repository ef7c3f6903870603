"""Real engines are measured: llama.cpp here and as a server, vLLM here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from memserve.__main__ import main
from memserve.serve.server import start

HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
WEIGHTS = HOME / "weights-1"
LOAD = ["--workload", "48:8:4", "--concurrency", "1,2", "--json", "--quiet"]
pytestmark = pytest.mark.filterwarnings("ignore")


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["bench", *words, *LOAD]) == 0
    out = capsys.readouterr().out
    found: dict[str, Any] = json.loads(out[out.index('{"schema"') :])
    assert [row["failed"] for row in found["results"]] == [0, 0]
    assert all(row["ttft_ms"]["mean"] > 0 and row["output_tokens_per_s"] > 0 for row in found["results"])
    return found


@pytest.mark.engine("llamacpp")
def test_llamacpp_in_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = (WEIGHTS / "smollm2-gguf").glob("*.gguf")
    found = measured(capsys, "--backend", "llamacpp", "--model", str(model))
    assert all(row["input_tokens"] == pytest.approx(48, abs=4) for row in found["results"])
    assert found["memory"]["process_gib"] > 0.1 and found["results"][0]["predicted"]


@pytest.mark.engine("llamacpp")
def test_a_server_that_counts_no_tokens(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs pip install memserve[conformance]")
    (model,) = (WEIGHTS / "smollm2-gguf").glob("*.gguf")
    command = ["python", "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "512"]
    command += ["--interrupt_requests", "false"]  # else a second caller breaks the first one's stream
    with start(command, backend="llamacpp", python=sys.executable, log=tmp_path / "log") as server:
        words = ["--base-url", server.base_url, "--model", "smollm2", "--tokenizer", str(WEIGHTS / "smollm2")]
        found = measured(capsys, *words, "--options", f"api_key={server.reveal_key()}")
    assert all(0 < row["output_tokens"] <= 8 for row in found["results"])


@pytest.mark.engine("vllm")
@pytest.mark.slow
def test_vllm_in_this_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = ["--options", "dtype=float32", "enforce_eager=true"]
    found = measured(capsys, "--backend", "vllm", "--model", str(WEIGHTS / "tiny"), *options)
    assert all(row["output_tokens"] <= 8 for row in found["results"])
