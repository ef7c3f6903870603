"""`memserve VERB ...`: every verb is found, answers malformed calls on one line, and completes."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memserve import options
from memserve.__main__ import VERBS, main, module
from memserve.errors import InvalidInput
from memserve.missing import install_line

LONGEST = 301


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.sampled(2)
@pytest.mark.parametrize("verb", VERBS)
def test_the_command_and_the_module_are_one(verb: str) -> None:
    def asked(*start: str) -> tuple[int, str]:
        words = [*start, "--no-such-option"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    module_said = asked(sys.executable, "-m", f"memserve.{verb}")
    assert module_said == asked(sys.executable, "-m", "memserve", verb)
    assert module_said[0] == 2 and module_said[1].count("\n") == 1 and len(module_said[1]) <= LONGEST


def test_the_console_command_is_installed() -> None:
    command = shutil.which("memserve", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("memserve is on the path and not installed: no console command")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "memserve", "")


def test_without_a_verb_the_verbs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--help")
    assert code == 0 and all(f"\n  {verb}  " in out for verb in VERBS)
    assert said(capsys)[0] == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("plam", "llama-8b"), "did you mean plan?"),
        (("shrink", "llama-8b"), "unknown verb 'shrink'"),
        (("plan", "llama-8b", "--gpu", "1xL4"), "did you mean --gpus?"),
        (("plan", "llama-8b", "--quantisation", "awq"), "did you mean --quantization?"),
        (("plan", "llama-8b", "--gpus", "4", "V100"), "quote"),
        (("plan", "llama-8b", "--gpus", "-1xV100"), "--gpus takes SPEC: 4xV100"),
        (("plan", "llama-8b", "--context", "1e3"), "from 1 to 1,000,000,000 is needed, as 8192 or 32k"),
        (("plan", "llama-8b", "--engine-version", "abc"), "such as 0.19.1"),
        (("plan", "--check", "vllm serve X && rm -rf /"), "the shell's '&&'"),
        (("plan", "--check", "ls -la"), "llama-server"),
        (("plan", "--check", "vllm serve X", "--gpus", "any"), "leave --gpus any out"),
        (("plan", "llama-8b", "4xV999"), "unknown card 'V999'"),
        (("plan", "llama", "8b"), "one word too many: '8b'"),
        (("models", "--gpu", "1xL4"), "did you mean --gpus?"),
        (("models", "--task", "embedding"), "did you mean embed?"),
        (("cards", "--jsn"), "did you mean --json?"),
        (("doctor", "--jsn", "--json"), "did you mean --json?"),
        (("speed", "compression", "llama-8b", "--gpus", "1xL4", "--bakend", "hf"), "did you mean --backend?"),
        (("run", "x.jsonl", "-o", "y.jsonl", "--modle", "m"), "did you mean --model?"),
        (("serve", "plan.json", "--prot", "1"), "did you mean --port?"),
        (("--print-completion", "csh2"), "bash, zsh"),
    ],
)
def test_a_mistake_is_one_line_with_the_fix(
    words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert meant in err and err.count("\n") == 1 and len(err) <= LONGEST


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_each_value_once(verb: str) -> None:
    for action in module(verb).parser()._actions:
        line = module(verb).parser()._get_formatter()._format_action_invocation(action)
        names = line.split(" ")
        assert len(names) == len(set(names)), line


@pytest.mark.parametrize("word", ["nan", "-inf", "1e400"])
@pytest.mark.parametrize("verb", VERBS)
def test_no_option_takes_a_number_that_is_not_finite(verb: str, word: str) -> None:
    waiting = [module(verb).parser()]
    for parser in waiting:
        for action in parser._actions:
            if action.nargs == argparse.PARSER:
                waiting += dict(action.choices or {}).values()
            elif callable(action.type):
                try:
                    found = action.type(word)
                except (ValueError, argparse.ArgumentTypeError):
                    continue
                assert not isinstance(found, float) or math.isfinite(found), action.option_strings


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_of_several_words_that_is_given_twice_holds_them_all(verb: str) -> None:
    parser = module(verb).parser()
    for action in [one for one in parser._actions if one.nargs in ("+", "*") and one.option_strings]:
        name = action.option_strings[0]
        found = parser.parse_known_args([name, "a=1", "b=2", name, "c=3"])[0]
        assert getattr(found, action.dest) == ["a=1", "b=2", "c=3"], name


@pytest.mark.parametrize("word", ["1e400", "[1, 1e400]", "{'a': -1e400}"])
def test_no_option_of_an_engine_holds_one_either(word: str) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        options.value(word)
    assert options.value("[1, 2.5]") == [1, 2.5] and options.value("nan") == "nan"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_verbs_and_options(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("shtab", reason="shell completion is an extra: memserve[completion]")
    code, out, _ = said(capsys, "--print-completion", shell)
    assert code == 0 and "models" in out and "--quantization" in out
    if shell == "bash" and shutil.which("bash"):
        script = tmp_path / "completion.sh"
        script.write_text(out, encoding="utf-8")
        ask = 'source "$1"; COMP_WORDS=(memserve plan --gp); COMP_CWORD=2; f=$(complete -p memserve'
        ask += " | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f memserve --gp plan; echo ${COMPREPLY[@]}"
        done = subprocess.run(
            ["bash", "-c", ask, "-", str(script)], capture_output=True, text=True, timeout=60, check=False
        )
        assert "--gpus" in done.stdout.split(), done


def test_cards(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "cards", "--json")
    found = {card["name"]: card for card in json.loads(out)["cards"]}
    assert code == 0 and found["V100-32GB"]["capability"] == [7, 0] and "CPU" not in found
    code, out, _ = said(capsys, "cards")
    assert code == 0 and all(name in out for name in found)
    rates = {
        line.split()[0]: line.split()[4]
        for line in out.splitlines()
        if line.split()[:1] and line.split()[0] in found
    }
    assert rates["P40"] == "0.18" and len(rates) == len(found) and "0" not in rates.values()


def test_doctor_tells_whether_a_key_is_set_and_never_the_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-do-not-print-me")
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    code, out, err = said(capsys, "doctor", "--json")
    assert err == ""
    told = json.loads(out)
    parts = {part["name"]: part for part in told["parts"]}
    assert code == 0 and told["python"]["python"] and told["machine"]["cores"] >= 1
    assert parts["openai"]["keys"]["OPENAI_API_KEY"] is True
    assert parts["gemini"]["keys"]["GEMINI_API_KEY"] is False
    assert parts["vllm"]["installed"] or parts["vllm"]["install"] == install_line("vllm")
    packages = [one for part in told["parts"] for one in (*part["installed"], *part["missing"])]
    assert not {"twine", "atheris", "ruff", "zensical", "pytest-xdist", "litellm"} & {*packages}
    page = said(capsys, "doctor")[1]
    assert "OPENAI_API_KEY set" in page and "do-not-print" not in out + page


def test_a_driver_is_read_from_its_module(tmp_path: Path) -> None:
    from memserve.hardware.detection import host

    file = tmp_path / host.FILES["nvidia"]
    file.parent.mkdir(parents=True)
    file.write_text("580.65.06\n", encoding="ascii")
    assert host.release("nvidia", tmp_path) == "580.65.06"
    assert host.release("amd", tmp_path) is None and host.release("cpu", tmp_path) is None


def test_models_without_a_machine_are_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "models", "--json", "--task", "embed")
    told = json.loads(out)
    assert code == 0 and told["machine"] is None
    names = {row["model"]["id"] for row in told["models"]}
    assert "BAAI/bge-m3" in names and "meta-llama/Llama-3.1-8B-Instruct" not in names
    assert all(row["plan"] is None for row in told["models"])


@pytest.mark.slow
def test_models_that_fit_come_with_their_plans_the_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "models", "--gpus", "1xL4", "--task", "generate", "--json")
    told = json.loads(out)
    rows = told["models"]
    assert code == 0 and told["machine"]["card"] == "L4" and "parameters" in told["ranked_by"]
    assert all(row["plan"]["fits"] and row["plan"]["context"] == 8192 for row in rows)
    assert rows[0]["quality"]["benchmark"] == "MMLU-Pro" and rows[0]["quality"]["source"]
    assert rows[-1]["plan"]["quantization"].startswith(("gguf-q2", "gguf-q3", "gptq")), "below 4 bits, last"
    fast = json.loads(said(capsys, "models", "--gpus", "1xL4", "--task", "embed", "--objective", "throughput",
                           "--json")[1])  # fmt: skip
    rates = [row["plan"]["speed"]["texts_per_s"]["likely"] for row in fast["models"]]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.slow
def test_no_model_fits_a_card_that_is_too_small(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "models", "--gpus", "1xL4", "--task", "embed", "--context", "100M")
    assert code == 1 and "no model of the catalogue fits" in out


def test_a_closed_pipe_is_no_failure() -> None:
    words = [sys.executable, "-m", "memserve", "cards"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(timeout=60) == 0


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>&-", "2>/dev/full"])
def test_a_run_needs_no_stream_and_none_of_its_files_takes_ones_place(tmp_path: Path, streams: str) -> None:
    """Under cron, or with a log on a full disk."""
    (tmp_path / "r.jsonl").write_text('"a"\n"b"\n')
    words = [
        sys.executable,
        "-m",
        "memserve",
        "run",
        "r.jsonl",
        "-o",
        "a.jsonl",
        "--backend",
        "toy",
        "--max-tokens",
        "5",
    ]
    done = subprocess.run(f"{shlex.join(words)} {streams}", shell=True, cwd=tmp_path, check=False, timeout=60)
    assert (done.returncode, len((tmp_path / "a.jsonl").read_text().splitlines())) == (0, 2)
