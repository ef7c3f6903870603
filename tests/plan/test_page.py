"""What is printed can be pasted: commands and ids are whole at any width; a plan is a screen."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest

import memserve
from memserve.plan.page import Section, html, text
from memserve.plan.sections import billions, plan_row, whole

CALLS = (
    ("llama-70b", "--gpus", "4xV100"),
    ("llama-8b", "--gpus", "1xA100", "--embedder", "BAAI/bge-m3"),
    ("deepseek-v3", "--gpus", "2x8xH100", "--backend", "vllm"),
    ("Qwen/Qwen3-32B", "--gpus", "4xV100", "--quantization", "gguf-q5_k_m", "--why"),
)
PLANS = (("llama-70b", "4xV100"), ("deepseek-v3", "16x8xH100"), ("qwen3-32b", "2xL4"),
         ("llama-8b", "8x910B4"), ("gpt-4o-mini", "cpu"), ("Qwen/Qwen3-235B-A22B", "8xH100"),
         ("BAAI/bge-m3", "1xT4"))  # fmt: skip
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(words: tuple[str, ...], width: int) -> str:
    """What a terminal of that width shows, as the program wrote it."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    main, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "memserve.plan", *words]
    with subprocess.Popen(command, stdout=other, stderr=subprocess.PIPE, env=environment) as process:
        os.close(other)
        written = b""
        while True:
            try:
                read = os.read(main, 65536)
            except OSError:  # the terminal is closed at the program's end
                break
            if not read:
                break
            written += read
        os.close(main)
        assert process.stderr is not None and process.stderr.read() == b"" and process.wait(timeout=60) == 0
    return COLOURS.sub("", written.decode()).replace("\r", "")


def in_a_pipe(words: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "memserve.plan", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def commands(answer: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Each line that should be printed, with the words that a shell must make of it."""
    plans = [answer["plan"], *([answer["embedder"]] if answer.get("embedder") else [])]
    found = []
    for plan in plans:
        for step in plan["nodes"] or [plan]:
            words = [f"{name}={value}" for name, value in step["env"].items()] + step["command"]
            found.append((shlex.join(step["command"]), words))
        others = filter(None, (plan["install"], plan["make_checkpoint"]))
        found += [(line, shlex.split(line)) for line in others]
    return found


@pytest.mark.sampled(3)
@pytest.mark.parametrize("words", CALLS, ids=lambda words: words[0])
@pytest.mark.parametrize("width", [80, 110, None])
def test_printed_commands_are_the_plans(words: tuple[str, ...], width: int | None) -> None:
    answer = json.loads(in_a_pipe((*words, "--json")))
    page = in_a_pipe(words) if width is None else on_terminal(words, width)
    lines = page.splitlines()
    for line, meant in commands(answer):
        found = [one for one in lines if one.strip().endswith(line)]
        assert found, (line, page)
        assert any(shlex.split(one) == meant for one in found), (found, meant)
        if shutil.which("bash"):
            checked = subprocess.run(["bash", "-n"], input=found[0], text=True, timeout=60, check=False)
            assert checked.returncode == 0
    for plan in (answer["plan"], *answer["alternatives"]):
        assert plan["checkpoint"] in page or plan["make_checkpoint"]
    if width is not None:
        whole = [line for line, _ in commands(answer)]
        wide = [one for one in lines if len(one) > width and not any(one.endswith(line) for line in whole)]
        assert all(" " not in one.strip() for one in wide), wide  # only a word that is wider than the page


@pytest.mark.parametrize(("model", "gpus"), PLANS)
def test_a_plan_is_a_screen(model: str, gpus: str) -> None:
    plan = memserve.plan.best(model, gpus)
    page = str(plan)
    assert len(page) <= 4000 and plan.model.id in page
    assert len(repr(plan)) <= 200 and "\n" not in repr(plan)
    commanded = [line for line in page.splitlines() if len(line) > 100]
    assert all(line.startswith("  ") for line in commanded)
    if plan.command:
        assert shlex.join(plan.command) in page or plan.machine.nodes > 1
    shown = plan._repr_html_()
    assert shown.count("<table>") >= 1 and plan.model.id in shown and len(shown) < 40_000


def test_a_table_counts_the_requests_of_all_copies() -> None:
    for plan in memserve.plan.best("llama-8b", "8xA100-40GB").alternatives:
        each = plan.footprint.max_concurrency if plan.footprint else 0
        assert each and plan_row(plan)[3] == f"{each * plan.data_parallel:.1f}"


def test_what_is_small_is_not_nothing() -> None:
    slow = memserve.plan.best("qwen3-32b", "t3.2xlarge", quantization="gguf-q4_k_m")
    assert slow.speed and f"({slow.speed['output_tokens_per_s']['low']:.2g} to " in str(slow)
    assert (whole(0.42), whole(1.4), billions(4_386_000), billions(33_360_000)) == (
        "0.42", "1", "4.39 M", "0.03 B")  # fmt: skip


def test_a_long_winded_plan_is_a_screen_too() -> None:
    from dataclasses import replace

    plan = memserve.plan.best("llama-70b", "4xV100")
    talkative = replace(plan, reasons=tuple(f"reason {number}: " + "because " * 40 for number in range(99)))
    page = str(talkative)
    assert len(page) <= 4000 and "more in plan.reasons" in page and shlex.join(plan.command) in page


def test_html_is_escaped() -> None:
    shown = html([Section("<script>", ("<b>",), (("<i>",),), ("<u> & x",))])
    assert "<script>" not in shown and "<i>" not in shown and "<u>" not in shown and "&lt;script&gt;" in shown


def test_narrow_tables_name_what_they_move() -> None:
    table = Section("title", ("engine", "checkpoint"), (("vllm", "owner/" + "x" * 60),))
    narrow = text([table], 60).split()
    assert narrow[-2:] == ["checkpoint:", "owner/" + "x" * 60]
    assert text([table]).splitlines()[-1].strip() == "vllm    owner/" + "x" * 60


def test_a_workload_names_its_own_context() -> None:
    plan = memserve.plan.best("llama-8b", "1xH100", workload="30000:200:100")
    said = next(reason for reason in plan.reasons if reason.startswith("planned for"))
    assert "the workload's longest request" in said and "default" not in said


def test_a_provider_computes_in_nothing() -> None:
    page = str(memserve.plan.best("gpt-4o-mini", "cpu"))
    assert "computes in" not in page and "GiB" not in page and "openai" in page
