"""The planner's own choice for a CPU, planned, started, asked and ended as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import memserve

pytestmark = [pytest.mark.engine("hf"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
MODEL = HOME / "weights-1" / "smollm2"


def test_from_a_model_to_an_answer_to_a_clean_end(tmp_path: Path) -> None:
    plan = [sys.executable, "-m", "memserve.plan", str(MODEL), "--gpus", "cpu", "--context", "512", "--json"]
    answer = tmp_path / "plan.json"
    answer.write_text(subprocess.run(plan, capture_output=True, text=True, check=True).stdout)
    serve = [sys.executable, "-m", "memserve.serve", str(answer), "--python", sys.executable]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        ready = serving.stdout.readline()
        assert ready.startswith("ready: http://127.0.0.1:"), serving.communicate()
        assert "asks for none" in ready  # transformers' server has no key, and stays on loopback
        url = ready.split()[1]
        with memserve.generator(str(MODEL), backend="openai", base_url=url, api_key="x") as asked:
            assert "Paris" in asked.generate("What is the capital of France?", max_tokens=12).text
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=60)
    assert serving.returncode == 0, said
    assert said.rstrip().endswith("stopped")
