"""Whatever is typed, the planner answers with 0, 1 or 2 and one line of error, never a traceback."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memserve.engines.rules import version_key, within
from memserve.plan.__main__ import main
from memserve.plan.tasks.options import TAKES, parser

MODELS = (
    "llama-8b",
    "llama-70b",
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "BAAI/bge-m3",
    "facebook/opt-125m",
    "gpt2",
)
CARDS = ("V100", "T4", "L4", "A100-40GB", "H100", "B200", "910B4", "910B2", "A3", "MI300X", "P100", "M3-Max",
         "RTX4090", "Gaudi2", "310P")  # fmt: skip
BACKENDS = ("vllm", "ascend", "sglang", "hf", "lmdeploy", "llamacpp", "mindie", "openai")
QUANTIZATIONS = (
    "none",
    "gptq",
    "awq",
    "nf4",
    "int8",
    "fp8",
    "w8a8",
    "w4a16",
    "nvfp4",
    "mxfp4",
    "gguf-q4_k_m",
)


def spoken(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def optional(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.one_of(st.just([]), values.map(lambda value: [name, value]))


counts = st.integers(1, 9).map(str)
asked = st.tuples(
    optional("--backend", st.sampled_from(BACKENDS)),
    optional("--quantization", st.sampled_from(QUANTIZATIONS)),
    optional("--tp", counts), optional("--pp", counts), optional("--dp", counts),
    optional("--context", st.sampled_from(["1", "512", "8192", "32k", "131072", "9999999"])),
    optional("--concurrency", st.sampled_from(["1", "7", "300"])),
    optional("--kv-dtype", st.sampled_from(["auto", "fp8", "int8"])),
    optional("--engine-version", st.sampled_from(["0.33.0", "0.19.1", "0.6.6", "main", "0.23.0.post1"])),
    optional("--objective", st.sampled_from(["quality", "throughput", "latency", "cost"])),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    model=st.sampled_from(MODELS), card=st.sampled_from(CARDS), nodes=st.sampled_from(["", "2x"]),
    cards=st.integers(1, 8), options=asked,
)  # fmt: skip
def test_well_formed_calls_answer_with_one_object(model: str, card: str, nodes: str, cards: int,
                                                  options: tuple[list[str], ...]) -> None:  # fmt: skip
    words = [
        model,
        "--gpus",
        f"{nodes}{cards}x{card}",
        *(word for option in options for word in option),
        "--json",
    ]
    code, out, err = spoken(words)
    assert code in (0, 1), (words, err)
    answer = json.loads(out)
    assert answer["fits"] is (code == 0) and (answer["plan"] is None) is (code == 1)
    if answer["plan"] and answer["plan"]["tensor_parallel"]:
        plan = answer["plan"]
        taken = plan["tensor_parallel"] * plan["pipeline_parallel"] * plan["data_parallel"]
        machine = answer["machine"]
        assert taken <= machine["nodes"] * machine["cards_per_node"]
        memory = plan["memory_gib_per_card"]
        held = memory["weights"] + memory["activation"] + memory["non_torch"] + memory["kv_cache"]
        assert held <= memory["usable"] + 1e-3
        assert plan["max_concurrency"] * plan["data_parallel"] >= plan["concurrency"] - 0.01


COMMAND = ("--check", "vllm serve Qwen/Qwen3-8B --max-model-len 8192", "--gpus", "1xL4")
CALLS: dict[str, tuple[str, ...]] = {
    "": ("gpt2",), "page": ("--page", "x"), "beside": ("gpt2", "--beside", "gpt2"),
    "emit": ("gpt2", "--emit", "compose"), "compare": ("--compare", "1xL4", "--workload", "locomo"),
    "calibrate": ("--calibrate", "x"), "calibrations": ("--calibrations",), "forget": ("--forget", "1"),
    "check": COMMAND, "train": ("gpt2", "--train", "qlora"), "verify": ("gpt2", "--verify", "x"),
    "embedder": ("gpt2", "--embedder", "gpt2"), "any": ("gpt2", "--gpus", "any"),
}  # fmt: skip
HEEDED = {
    "gpus": ["--gpus", "1xA100"], "memory": ["--memory", "20"],
    "engine_version": ["--engine-version", "0.19.1"],
    "context": ["--context", "16k"], "concurrency": ["--concurrency", "300"],
    "workload": ["--workload", "1000:200:50"], "deadline": ["--workload", "1000:200:50", "--deadline", "1s"],
    "budget": ["--workload", "1000:200:50", "--budget", "0.01"], "headroom": ["--headroom", "50%"],
    "ttft": ["--ttft", "1"], "tpot": ["--tpot", "1"],
}  # fmt: skip
"""Each with a value that changes the verdict on COMMAND."""
SHOWN = ("why", "json", "plot")
OPTIONS = {action.dest: action for action in parser()._actions if action.dest != "help"}


def given_as(name: str) -> list[str]:
    action = OPTIONS[name]
    flag = [*action.option_strings]
    return flag if flag and action.nargs == 0 else [*flag, "0.0.0.0" if name == "bind" else "2"]


def test_what_a_check_heeds_changes_its_answer() -> None:
    assert {*HEEDED, *SHOWN} == {*TAKES["check"]}
    before = spoken([*COMMAND, "--json"])
    for name, words in HEEDED.items():
        after = spoken([*COMMAND, *words, "--json"])
        assert after[0] in (0, 1) and after[1] != before[1], (name, after[2])


@pytest.mark.parametrize("task", CALLS)
def test_each_task_heeds_an_option_or_refuses_it(task: str) -> None:
    assert {*CALLS} == {*TAKES}
    for name in OPTIONS:
        if (
            name in {task, "gpus", *TAKES[task]}
            or task in TAKES.get(name, ())
            or (not task and name in TAKES)
        ):
            continue
        code, out, err = spoken([*CALLS[task], *given_as(name)])
        assert (code, out) == (2, "") and ("leave " in err or "too many" in err), (name, err)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(words=st.lists(st.text(max_size=30), max_size=5))
def test_any_words_exit_0_1_or_2_with_at_most_one_line(words: list[str]) -> None:
    safe = [word for word in words if word not in ("-h", "--help")]
    code, _, err = spoken([*safe, "--gpus", "1xL4"])
    assert code in (0, 1, 2)
    assert err.count("\n") <= 1 and len(err) <= 301
    assert "please report" not in err


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_any_version_has_a_key_and_lies_somewhere(text: str) -> None:
    assert version_key(text) == version_key(text)
    assert within(text, None, None)
    assert within(text, "0.5.0", None) or within(text, None, "0.5.0")
