"""Last words of engines, as they were really logged, in plain ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.serve import advice
from memserve.serve.advice import diagnose

if TYPE_CHECKING:
    from collections.abc import Mapping

SAID = [
    ("ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be "
     "stored in KV cache (24320).", "does not hold one request"),
    ("ValueError: Free memory on device (13.58/15.99 GiB) on startup is less than desired GPU memory "
     "utilization (0.85, 13.59 GiB).", "something else already uses"),
    ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "leave no memory"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 784.00 MiB.", "out of memory"),
    ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1.50 GiB for an array with shape (8192, "
     "49152) and data type float32", "out of memory"),
    ("ValueError: Failed to create llama_context", "out of memory"),
    ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", "bfloat16"),
    ("ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75.",
     "too old for this quantization"),
    ("ValueError: Total number of attention heads (52) must be divisible by tensor parallel size (8).",
     "does not divide"),
    ("ValueError: The input size is not aligned with the quantized weight shape.", "group would be cut"),
    ("OSError: [Errno 98] Address already in use", "port is taken"),
    ("vllm: error: unrecognized arguments: --no-such-flag", "does not know an option"),
    ("ModuleNotFoundError: No module named 'torch_npu'", "Ascend software is incomplete"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "no kernels"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "meaning"), SAID, ids=[line[:24] for line, _ in SAID])
def test_known_last_words(line: str, meaning: str) -> None:
    found = diagnose(
        f"INFO starting\n(EngineCore pid=7) ERROR 11-20 05:29:13 [core.py:718] {line}\nbye\n",
        failures=failures(),
    )
    assert meaning in found.problem
    assert found.remedy
    assert line[:60] in found.line


def failures() -> list[Mapping[str, str]]:
    servers = (server_of(installed.named(name)) for name in installed.plannable())
    return [row for server in servers if server is not None for row in server.failures]


def test_unknown_last_words_are_shown_themselves() -> None:
    log = (
        'loading\nTraceback (most recent call last):\n  File "x.py", line 1\nStrangeError: the moon is full\n'
    )
    assert diagnose(log).line == "StrangeError: the moon is full"


def test_what_cannot_be_is_no_news_of_cann() -> None:
    line = "ValueError: the name cannot start with '-'; oracle error"
    assert diagnose(f"loading\n{line}\n").problem == "the engine stopped"


def test_silence_is_said_to_be_silence() -> None:
    assert diagnose("\n\n").line == "it said nothing"


def test_every_row_says_what_helps() -> None:
    rows = json.loads(Path(advice.__file__).with_name("diagnoses.json").read_text())["rows"]
    assert all(row["pattern"] and row["problem"] and row["remedy"] for row in (*rows, *failures()))
