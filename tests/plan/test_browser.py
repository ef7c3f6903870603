"""The planner as a page: the folder plans by itself. benchmarks/page.py asks it in Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest

from memserve.plan.__main__ import main
from memserve.plan.tasks import browser

QUESTIONS = (
    ["llama-70b", "--gpus", "4xV100"],
    ["qwen3-32b", "--gpus", "2xL4", "--context", "16k", "--concurrency", "4"],
    ["deepseek-v3", "--gpus", "1xT4"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page whose Python lies there already, so that none is fetched."""
    place = tmp_path_factory.mktemp("page")
    (place / "pyodide").mkdir()
    for name in browser.NEEDED:
        (place / "pyodide" / name).write_text("")
    (place / browser.MEMORY).write_text("of another planner")
    assert main(["--page", str(place)]) == 0
    return place


def test_what_is_packed_plans_alone(folder, tmp_path):
    """Without site-packages: what the page unpacks is all that it has."""
    with zipfile.ZipFile(folder / "memserve.zip") as packed:
        packed.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from memserve.plan.tasks import browser\nassert browser.__file__.startswith(sys.path[0])\n"
        "for line in sys.stdin: print(browser.answer(line))\nprint(browser.names())"
    )
    asked = "".join(json.dumps(words) + "\n" for words in QUESTIONS)
    alone = [sys.executable, "-S", "-I", "-c", code]
    done = subprocess.run(alone, input=asked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *answers, offered = map(json.loads, done.stdout.splitlines())
    for words, answer in zip(QUESTIONS, answers, strict=True):
        here = json.loads(browser.answer(json.dumps(words)))
        assert answer["answer"]["plan"] == here["answer"]["plan"]
        assert answer["fits"] == here["fits"] == (words[0] != "deepseek-v3")
    assert "llama-70b" in offered["models"] or "meta-llama/Llama-3.1-70B-Instruct" in offered["models"]
    assert {"V100", "L4"} & {name.split("-")[0] for name in offered["cards"]}


def test_the_page_says_what_the_command_line_says(capsys):
    for words in QUESTIONS:
        main([*words, "--json"])
        assert json.loads(browser.answer(json.dumps(words)))["answer"] == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("words", "said"), [(["llama-70b", "--gpus", "4xV999"], "V999"), (["--tp"], "tp")])
def test_what_is_malformed_is_one_line(words, said):
    (found,) = json.loads(browser.answer(json.dumps(words))).values()
    assert said in found
    assert "\n" not in found


def test_a_memory_of_another_planner_does_not_stay(folder):
    """This Python is empty, so node cannot write the memory anew."""
    assert not (folder / browser.MEMORY).exists()


def test_the_page_asks_nobody_else(folder):
    text = (folder / browser.SHOWN).read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "Content-Security-Policy" in text


def test_a_python_that_cannot_be_had_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--page", str(tmp_path / "page")]) == 2
    assert "install npm" in capsys.readouterr().err
