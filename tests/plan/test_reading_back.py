"""Every command that the planner writes is read back to the same deployment and the same memory."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.engines import installed
from memserve.plan.candidate import loaded

if TYPE_CHECKING:
    from memserve.plan import Candidate

MODELS = ("llama-8b", "llama-70b", "Qwen/Qwen3-30B-A3B-Instruct-2507", "BAAI/bge-large-en-v1.5",
          "BAAI/bge-reranker-v2-m3", "deepseek-v3", "google/gemma-2-9b-it", "Qwen/Qwen2.5-VL-7B-Instruct",
          "openai/gpt-oss-20b")  # fmt: skip
MACHINES = ("1xT4", "4xV100", "2xL4", "8xH100", "2x8xH100", "8x910B4", "2xMI300X", "cpu")
LEAST = {"mindie": 5, "ascend": 30}
"""Commands that fit these few cards and models; 100 of all others."""
BACKENDS = ("vllm", "ascend", "mindie", "sglang", "lmdeploy", "hf", "llamacpp")
FEW = 12
"""Candidates of one model, machine and backend that are read back."""


def readable(candidate: Candidate) -> bool:
    """One that must be made first says how it is stored in a file that is not there yet; GGUF in its name."""
    return candidate.checkpoint.make is None or candidate.quantization.startswith("gguf")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_command_reads_back(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_back = 0
    for gpus, name in product(MACHINES, MODELS):
        machine = memserve.hardware.parse(gpus)
        model = memserve.model.load(name)
        found = memserve.plan.candidates(name, machine, backend=backend, concurrency=2)
        for candidate in [one for one in found if one.fits and readable(one)][:FEW]:
            held = loaded(model, candidate.checkpoint)
            launch = installed.named(backend).launch.launch(
                held, candidate.checkpoint.id, machine, candidate.deployment
            )
            if candidate.checkpoint.make:
                monkeypatch.setattr("memserve.model.load", lambda _, held=held: held)
            words = [*(f"{name}={value}" for name, value in launch.env.items()), *launch.command]
            read = memserve.plan.check(
                words, machine, engine_version=candidate.engine_version, context=candidate.context,
                concurrency=candidate.concurrency,
            )  # fmt: skip
            monkeypatch.undo()
            told = (launch.command, candidate.deployment)
            assert (read.backend, read.checkpoint.id) == (backend, candidate.checkpoint.id), told
            assert read.not_counted == (), told
            assert read.rule != "flag", told
            for figure in ("quantization", "dtype", "tensor_parallel", "pipeline_parallel", "data_parallel",
                           "kv_dtype", "context", "memory_gib_per_card", "kv_cache_tokens"):  # fmt: skip
                assert getattr(read, figure) == getattr(candidate, figure), (figure, *told)
            read_back += 1
    assert read_back >= LEAST.get(backend, 100)
