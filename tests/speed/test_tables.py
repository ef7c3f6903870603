"""`python -m memserve.speed communication | compression`."""

from __future__ import annotations

import pytest

from memserve.errors import InvalidInput
from memserve.model import load
from memserve.speed import communication
from memserve.speed.__main__ import main
from memserve.speed.roofline import shape

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def test_what_layouts_send(capsys):
    assert main(["communication", LLAMA, "--cards", "4", "--link", "NVLink4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["parallelism", "data", "tensor", "pipeline"]
    assert main(["communication", "Qwen/Qwen3-30B-A3B-Instruct-2507", "--train"]) == 0
    assert "expert" in capsys.readouterr().out


def test_what_compression_gains(capsys):
    assert main(["compression", LLAMA, "--gpus", "1xA100", "--prune", "2:4", "layer:8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("none") and "x1.00" in lines[1]
    assert lines[-2].startswith("2:4") and lines[-1].startswith("layer:8")


@pytest.mark.parametrize(
    "words",
    [("communication", LLAMA, "--cards", "0"), ("communication", LLAMA, "--tokens", "nan"),
     ("compression", LLAMA, "--gpus", "1xNOPE"), ("compression", LLAMA, "--gpus", "1xA100", "--prune", "3:2"),
     ("compression", LLAMA, "--gpus", "1xA100", "--concurrency", "0"),
     ("communication", LLAMA, "--link", "x"),
     (), ("nonsense",), ("communication", LLAMA, "--cards", "many"), ("compression", LLAMA)],
)  # fmt: skip
def test_malformed_calls_are_one_line(words, capsys):
    assert main(list(words)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and len(told) <= 301


@pytest.mark.parametrize("words", [{"kind": "odd"}, {"cards": "4"}, {"cards": None}, {"tokens": "x"}])
def test_the_library_refuses_the_same(words):
    given = {"kind": "tensor", "cards": 4, "link": "NVLink4", "tokens": 8} | words
    with pytest.raises(InvalidInput):
        communication.inference(shape.of(load(LLAMA)), **given)
