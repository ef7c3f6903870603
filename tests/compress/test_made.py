"""Checkpoints made by the real libraries, loaded and judged again by plain code; what stops half-way."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_hf import causal

from memserve.compress import text
from memserve.compress.__main__ import main

pytestmark = [pytest.mark.engine("compress"), pytest.mark.filterwarnings("ignore")]
Said = pytest.CaptureFixture[str]
FAST = ["--samples", "4", "--length", "64", "--window", "64", "--windows", "2"]
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "head_dim": 32}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in bfloat16, whose rows 128 divides."""
    return causal(tmp_path_factory.mktemp("tiny"), dtype="bfloat16", **SIZES)


def compress(model: Path, folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """The report of one call, in this interpreter's environment."""
    assert main([str(model), *words, *FAST, "-o", str(folder), "--python", sys.executable]) == code
    found = folder if code == 0 else folder.with_name(folder.name + ".refused")
    report: dict[str, Any] = json.loads((found / "report.json").read_text())
    return report


def perplexity(folder: Path, like: Path) -> float:
    """Plain code: transformers, the judged text, two windows of 64 tokens, nothing of the worker."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    words = AutoTokenizer.from_pretrained(like)
    ids = torch.tensor(words(text.read(None).judged, add_special_tokens=False)["input_ids"])[: 2 * 64].view(
        2, 64
    )
    with torch.inference_mode():
        losses = [float(torch.nn.functional.cross_entropy(
            model(row[None]).logits[0, :-1].float(), row[1:])) for row in ids]  # fmt: skip
    return math.exp(sum(losses) / len(losses))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints stay that a second test loads."""
    return tmp_path_factory.mktemp("kept")


@pytest.mark.parametrize("to", ["fp8", "w8a8", "w4a16", "nf4", "int8", "layers:1", "width:0.5"])
def test_made_loaded_and_judged_as_plain_code_does(
    tiny: Path, kept: Path, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()}
    report = compress(Path(os.path.relpath(tiny)), Path("made"), "--to", to)
    plain = perplexity(tmp_path / "made", tiny) / perplexity(tiny, tiny) - 1
    assert abs(report["loss"] - plain) <= 0.005
    assert report["after"]["bytes"] < report["before"]["bytes"]
    assert 0 <= report["greedy_agreement"] <= 1 and report["kl"] >= 0
    assert {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()} == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"made"}, "nothing half-made stays, and no library writes anything here"
    files = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"report.json", "report.md", "report.svg", "README.md", "config.json", "tokenizer.json"} <= files
    (tmp_path / "made").rename(kept / to)


def loads(python: str, code: str, folder: Path) -> str:
    """What another engine's interpreter says of a folder; nothing of this environment leaks into it."""
    kept = ("PATH", "HOME", "TMPDIR", "VLLM_CPU_KVCACHE_SPACE", "LD_PRELOAD")
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    env |= {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run([python, "-c", code, str(folder)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# vLLM 0.32 uses AMX without asking the kernel for it; torch asks at its first 16-bit product, too late
# where every linear layer is quantized: the engine, here in one process, would die of an illegal instruction.
VLLM = """
import sys
if __name__ == "__main__":
    import torch
    torch.cpu._init_amx()
    from vllm import LLM, SamplingParams
    model = LLM(sys.argv[1], max_model_len=128, enforce_eager=True, dtype="bfloat16")
    four = SamplingParams(max_tokens=4, ignore_eos=True)
    print("tokens", len(model.generate(["the river runs"], four)[0].outputs[0].token_ids))
"""


@pytest.mark.parametrize("to", ["w8a8", "w4a16"])
def test_vllm_on_a_cpu_loads_it(tiny: Path, kept: Path, to: str) -> None:
    python = os.environ.get("MEMSERVE_VLLM")
    if not python:
        pytest.skip("MEMSERVE_VLLM names no interpreter with vLLM: tests/engines/run compress")
    if not (kept / to).exists():
        compress(tiny, kept / to, "--to", to)
    assert "tokens 4" in loads(python, VLLM, kept / to)


def test_a_gguf_file_by_llama_cpp_s_own_tools(tmp_path: Path) -> None:
    """The borrowed environment lies behind this one, so that one interpreter has torch and llama.cpp."""
    borrowed = os.environ.get("MEMSERVE_LLAMACPP")
    if not borrowed:
        pytest.skip("MEMSERVE_LLAMACPP names no interpreter with llama.cpp: tests/engines/run compress")
    site = "import site; print(*site.getsitepackages())"
    places = [subprocess.run([one, "-c", site], capture_output=True, text=True, check=True).stdout.strip()
              for one in (sys.executable, borrowed)]  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "both")], check=True)
    both = next((tmp_path / "both" / "lib").glob("python3*")) / "site-packages"
    (both / "both.pth").write_text("\n".join(places) + "\n")
    model = Path(os.environ["MEMSERVE_ENGINES"] if "MEMSERVE_ENGINES" in os.environ else
                 Path.home() / ".cache" / "memserve" / "engines") / "weights-1" / "smollm2"  # fmt: skip
    (task := tmp_path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (
        {"prompt": "What is the capital of France?", "expected": "Paris"},
        {"prompt": "Say yes.", "expected": "no such words"})))  # fmt: skip
    words = [str(model), "--to", "gguf-q4_k_m", *FAST, "-o", str(tmp_path / "made"), "--eval", str(task)]
    assert main([*words, "--python", str(tmp_path / "both" / "bin" / "python")]) == 0
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    assert (tmp_path / "made" / "made.gguf").stat().st_size == report["after"]["bytes"]
    assert report["ratio"] > 2 and report["greedy_agreement"] > 0.5
    assert report["before"]["eval"] == 0.5 and report["after"]["eval"] in (0, 0.5)


def test_pruned_and_quantized(tiny: Path, tmp_path: Path) -> None:
    report = compress(tiny, tmp_path / "made", "--to", "w4a16", "--to", "layers:1")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (report["methods"], config["num_hidden_layers"]) == (["layers:1", "w4a16"], 2)
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_a_gate_that_must_refuse(tiny: Path, tmp_path: Path, capsys: Said) -> None:
    """And another gate judges what was made without making it again."""
    words = [tiny, tmp_path / "made", "--to", "width:0.25"]
    report = compress(*words, "--min-speedup", "900", code=1)
    assert not report["gate"]["passed"] and report["gate"]["reason"]
    assert not (tmp_path / "made").exists()
    assert "refused" in capsys.readouterr().err
    for speedup, code, name in (("800", 1, "made.refused"), ("0.0001", 0, "made"), ("900", 1, "made")):
        call = [str(tiny), *words[2:], *FAST, "-o", str(words[1]), "--min-speedup", speedup]
        assert main([*call, "--json", "--python", sys.executable]) == code
        said = capsys.readouterr()
        again = json.loads(said.out)
        assert "is there already" in said.err and {one.name for one in tmp_path.iterdir()} == {name}
        assert again["after"] == report["after"] and again["gate"]["passed"] == (code == 0)
    for changed in (["--windows", "1"], ["--text", __file__], ["--samples", "3"]):
        assert main([*call, "--python", sys.executable, *changed]) == 2
        assert "not what this call makes" in capsys.readouterr().err


@pytest.mark.parametrize("template", [True, False])
def test_a_task_of_one_s_own_is_asked_of_both(tiny: Path, tmp_path: Path, template: bool) -> None:
    """A base model without a template is asked as it stands."""
    shutil.copytree(tiny, tmp_path / "model")
    if not template:
        (tmp_path / "model" / "chat_template.jinja").unlink()
    row = {"prompt": "the river", "expected": ["no such word", "x"], "max_tokens": 4}
    (task := tmp_path / "task.jsonl").write_text(json.dumps(row) + "\n")
    report = compress(tmp_path / "model", tmp_path / "made", "--to", "layers:1", "--eval", str(task))
    assert 0 <= report["before"]["eval"] <= 1 and 0 <= report["after"]["eval"] <= 1
    assert report["text"]["calibration_samples"] == 4


@pytest.mark.parametrize(("answer", "expected", "right"), [
    ("It is Paris.", ["paris"], True), ("42", ["4"], False), ("x = 4.", ["5", "4"], True),
    ("北京市", ["北京"], True),
    ("unlikely", ["likely"], False), ("(B)", ["b"], True), ("", ["b"], False),
])  # fmt: skip
def test_a_right_answer_holds_the_words_and_not_a_part_of_others(
    answer: str, expected: list[str], right: bool
) -> None:
    from memserve.compress.worker.measure import is_right

    assert is_right(answer, expected) == right


def test_a_kill_half_way_is_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL after the first step: nothing has the final name, and the step is not done again."""
    words = [str(tiny), "--to", "layers:1", *FAST, "-o", str(tmp_path / "made"), "--python", sys.executable]
    call = [sys.executable, "-m", "memserve.compress", *words]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL) as child:
        assert child.stderr is not None
        while "make layers:1" not in child.stderr.readline():
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
    assert {path.name for path in tmp_path.iterdir()} == {"made.partial"}
    again = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "original: done before" in again.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"made"}
    third = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "is there already" in third.stderr


def test_what_lies_there_is_never_written_over(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    words = ["--to", "layers:1", "-o", str(tmp_path / "made"), "--python", sys.executable]
    assert main([str(tiny), *words]) == 2
    assert not list((tmp_path / "made").iterdir())


def test_a_library_that_is_not_there_is_named(tiny: Path, tmp_path: Path, capsys: Said) -> None:
    words = ["--to", "gptq", "-o", str(tmp_path / "made"), "--python", sys.executable]
    assert main([str(tiny), *words]) == 1
    assert "lacks gptqmodel" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_without_a_network_a_hub_s_model_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    words = ["--to", "layers:1", *FAST, "-o", str(tmp_path / "made"), "--python", sys.executable]
    assert main(["HuggingFaceTB/SmolLM2-135M", *words]) == 1
    assert "original failed" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_a_dry_run_looks_inside(tiny: Path, capsys: Said) -> None:
    assert main([str(tiny), "--to", "fp8", "--dry-run", "--json", "--python", sys.executable]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in found["layers"]] == [0, 1, 2]
    assert all(row["weight_kurtosis"] == pytest.approx(3, abs=0.5) for row in found["layers"]), (
        "normal weights"
    )
    assert main([str(tiny), "--dry-run", "--python", sys.executable]) == 0
    assert "| layer |" in capsys.readouterr().out
