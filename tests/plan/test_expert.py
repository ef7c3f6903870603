"""A hundred ordinary questions, each beside what an engineer would answer."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import expert

ROWS = expert.questions()
JUDGED = {str(row["ask"]): expert.judge(row, expert.answer(row["ask"])) for row in ROWS}


@pytest.mark.parametrize("ask", JUDGED)
def test_no_answer_is_wrong(ask):
    assert JUDGED[ask] != "wrong"


def test_nearly_all_are_what_an_engineer_would_say():
    assert list(JUDGED.values()).count("good") >= 0.95 * len(JUDGED)


def test_the_judge_finds_fault():
    row = {"good": ["4-bit", "vllm"], "never": ["fp8"]}
    assert expert.judge(row, {"fp8", "8-bit", "vllm"}) == "wrong"
    assert expert.judge(row, set()) == "wrong"
    assert expert.judge(row, {"gptq", "4-bit", "hf"}) == "another"
    assert expert.judge({**row, "fits": False}, {"4-bit", "vllm"}) == "wrong"
