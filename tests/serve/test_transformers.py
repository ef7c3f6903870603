"""The planner's own choices for a CPU, planned, started, asked and ended as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

import memserve

pytestmark = [pytest.mark.engine("hf"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
MODEL, EMBEDDER = HOME / "weights-1" / "smollm2", HOME / "weights-1" / "minilm"


@contextmanager
def served(folder: Path, model: Path, *asked: str) -> Iterator[str]:
    """The ready line of what was planned for a model."""
    plan = [sys.executable, "-m", "memserve.plan", str(model), "--gpus", "cpu", *asked, "--json"]
    answer = folder / "plan.json"
    answer.write_text(subprocess.run(plan, capture_output=True, text=True, check=True).stdout)
    serve = [sys.executable, "-m", "memserve.serve", str(answer), "--python", sys.executable]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        ready = serving.stdout.readline()
        assert ready.startswith("ready: http://127.0.0.1:"), serving.communicate()
        yield ready
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=60)
    assert serving.returncode == 0, said
    assert said.rstrip().endswith("stopped")


def test_from_a_model_to_an_answer_to_a_clean_end(tmp_path: Path) -> None:
    with served(tmp_path, MODEL, "--context", "512") as ready:
        assert "asks for none" in ready  # transformers' server has no key, and stays on loopback
        url = ready.split()[1]
        with memserve.generator(str(MODEL), backend="openai", base_url=url, api_key="x") as asked:
            assert "Paris" in asked.generate("What is the capital of France?", max_tokens=12).text


def test_from_an_embedder_to_its_vectors_to_a_clean_end(tmp_path: Path) -> None:
    """From memserve's endpoint, which transformers' server has no route for; in this process the same."""
    with served(tmp_path, EMBEDDER, "--backend", "hf") as ready:
        _, url, _, key, *_ = ready.split()
        secret = Path(key).read_text().strip()
        words = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        body = json.dumps({"model": str(EMBEDDER), "input": ["a river", "a lamp"]}).encode()
        with urlopen(Request(f"{url}/embeddings", body, words), timeout=60) as told:
            vectors = [row["embedding"] for row in json.load(told)["data"]]
    assert [len(vector) for vector in vectors] == [384, 384]
    plan = memserve.plan.best(str(EMBEDDER), "cpu", backend="hf")
    with memserve.embedder(plan) as here:
        assert np.allclose(here.embed(["a river", "a lamp"]).vectors, vectors, atol=1e-2)
