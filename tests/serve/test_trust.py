"""A plan from somebody else is data: what the planner would not write is named and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import memserve
from memserve.engines import installed
from memserve.engines.environment import inherited
from memserve.errors import InvalidInput
from memserve.serve import planned, start

MACHINES = [
    ("vllm", "4xL4"), ("vllm", "4xV100"), ("vllm", "2xMI300X"), ("sglang", "8xL4"), ("lmdeploy", "4xV100"),
    ("llamacpp", "4xL4"), ("llamacpp", "cpu"), ("hf", "4xV100"), ("hf", "cpu"), ("ascend", "8x910B2"),
]  # fmt: skip


def _file(folder: Path, **plan: Any) -> str:
    file = folder / "plan.json"
    file.write_text(json.dumps({"plan": plan}))
    return str(file)


def _plans(backend: str, gpus: str) -> Iterator[memserve.plan.Plan]:
    """Everything that fits of one engine on one machine, in whatever bits."""
    for model in ("llama-8b", "qwen3-32b", "BAAI/bge-m3"):
        for quantization in (None, "awq", "nf4", "gptq", "fp8"):
            with suppress(memserve.errors.DoesNotFit):
                yield memserve.plan.best(model, gpus, backend=backend, quantization=quantization)


@pytest.mark.parametrize(("backend", "gpus"), MACHINES)
def test_whatever_the_planner_writes_needs_no_consent(tmp_path: Path, backend: str, gpus: str) -> None:
    plans = [{**plan.to_dict(), "make_checkpoint": None} for plan in _plans(backend, gpus)]
    assert plans
    for plan in plans:
        assert planned.read(_file(tmp_path, **plan))["plan"] == plan


EDITS = [
    ("1", "8"), ("8192", "120000"),
    ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"),
]  # fmt: skip


@pytest.mark.parametrize(("was", "now"), EDITS)
def test_an_edited_plan_that_does_not_fit_is_refused(tmp_path: Path, was: str, now: str) -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", backend="vllm").to_dict()
    plan["command"] = [now if word == was else word for word in plan["command"]]
    with pytest.raises(InvalidInput, match="does not fit"):
        planned.read(_file(tmp_path, **plan))


@pytest.mark.parametrize("memory", [10**400, float("inf"), float("nan"), -1, 0, "much", None])
def test_a_memory_that_no_card_has_is_told(
    tmp_path: Path, memory: object, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", backend="vllm").to_dict()
    plan["machine"]["memory_gib_per_card"] = memory
    with suppress(InvalidInput):
        planned.read(_file(tmp_path, **plan))
        assert "whether it fits was not judged" in capsys.readouterr().err


GOOD = ["vllm", "serve", "tiny"]
OURS = ["memserve", "serve", "--backend", "hf", "--model", "tiny"]
BEYOND = [
    ({"command": ["bash", "-c", "touch EXEC1; echo $0", "vllm", "serve"]}, "bash"),
    ({"command": ["./vllm", "serve", "tiny"]}, "./vllm"),
    ({"command": ["python", "evil.py", "-m", "sglang.launch_server"]}, "python"),
    ({"command": ["python3", "-c", "evil", "-m", "sglang.launch_server"]}, "python3"),
    ({"command": [*GOOD, "--trust-remote-code"]}, "--trust-remote-code"),
    ({"command": [*GOOD, "--trust_remote_code=true"]}, "--trust_remote_code"),
    ({"command": [*GOOD, "--trust-rem"]}, "--trust-rem"),
    ({"command": [*GOOD, "--middleware", "evil.hook"]}, "--middleware"),
    ({"command": [*GOOD, "-cc.backend=evil.compiler"]}, "--compilation-config"),
    ({"command": [*GOOD, "-O", '{"backend": "evil.compiler"}']}, "--optimization-level"),
    ({"command": [*GOOD, "--distributed-exec", "evil.Executor"]}, "--distributed-executor-backend"),
    ({"command": [*OURS, "--options", "dtype=float16", "trust_remote_code=true"]}, "trust_remote_code"),
    ({"command": [*OURS, "--options=allow_pickle=True"]}, "allow_pickle"),
    ({"command": [*OURS, "--no-key"]}, "--no-key"),
    ({"command": [*OURS, "--key-file", "/tmp/evil"]}, "--key-file"),
    ({"command": ["memserve", "serve", "--backend", "openai", "--model", "tiny"]}, "no server is started"),
    ({"command": GOOD, "env": {"PATH": "/tmp/evil"}}, "PATH"),
    ({"command": GOOD, "env": {"LD_PRELOAD": "/tmp/evil.so"}}, "LD_PRELOAD"),
    ({"command": GOOD, "env": {"PYTHONPATH": "/tmp/evil"}}, "PYTHONPATH"),
    (
        {"command": GOOD, "install": "pip install --index-url https://e.example vllm==0.33.0"},
        "--index-url",
    ),
    (
        {"command": GOOD, "install": "pip install vllm==1 --extra-index-url https://e.example"},
        "e.example",
    ),
    ({"command": GOOD, "install": "pip install /tmp/evil"}, "/tmp/evil"),
    ({"command": GOOD, "install": "pip install evil==1.0"}, "evil==1.0"),
    ({"command": GOOD, "install": "pip install vllm"}, "vllm"),
    (
        {"command": GOOD, "install": "PIP_INDEX_URL=x pip install vllm==1"},
        "PIP_INDEX_URL",
    ),
    ({"command": GOOD, "install": "rm -rf x"}, "rm -rf"),
    ({"command": GOOD, "install": "pip install -e /tmp/evil[hf]"}, "/tmp/evil[hf]"),
]


@pytest.mark.parametrize(("plan", "named"), BEYOND)
def test_what_goes_beyond_is_named_and_refused(tmp_path: Path, plan: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        planned.read(_file(tmp_path, **plan))
    assert named in str(caught.value)


def test_consent_names_what_it_is_for(tmp_path: Path) -> None:
    plan = {"command": [*GOOD, "--trust-remote-code"], "env": {"MOOD": "x"}}
    planned.read(_file(tmp_path, **plan), ["--trust-remote-code", "MOOD"])
    with pytest.raises(InvalidInput, match="MOOD"):
        planned.read(_file(tmp_path, **plan), ["--trust-remote-code"])


MALFORMED: list[Any] = [
    *({"command": GOOD, "env": env} for env in (["A"], {"A": 5}, {"A=B": "c"}, "x")),
    *({"command": command} for command in ([*GOOD, "a\0b"], [*GOOD, 5], "vllm serve", {})),
    *({"command": GOOD, "install": line} for line in (5, "pip install 'x", ["x"])),
    *({"command": GOOD, "nodes": nodes} for nodes in ([1], 5, [{"node": []}])),
    *({"command": GOOD, "backend": name} for name in (5, "no\nsuch", "foo", "openai", "sglang")),
    *({"command": GOOD, **field} for field in ({"fits": False}, {"fits": 1}, {"schema": 99}, {"schema": []})),
    *({"command": GOOD, name: value} for name, value in
      (("engine_version", 7), ("context", -5), ("tensor_parallel", True), ("concurrency", "many"))),
    *({"command": [*GOOD, *words]} for words in
      (["--max-modle-len", "5"], ["--max-model-len", "-5"], ["-tp", "0"], ["twice"])),
    {"command": [*GOOD, "--swap-space", "4"], "engine_version": "0.33.0"},
    {"command": GOOD, "make_checkpoint": {}}, {"command": GOOD, "checkpoint": 7, "make_checkpoint": "x"},
]  # fmt: skip


@pytest.mark.parametrize("plan", MALFORMED)
def test_a_malformed_plan_is_one_line_and_exit_2(
    tmp_path: Path, plan: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from memserve.serve.__main__ import main

    code = main([_file(tmp_path, **plan), "--dry-run"])
    said = capsys.readouterr().err
    assert (code, said.count("\n"), "Traceback" in said) == (2, 1, False), said


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "\ufeff{}", "nul", '"\\ud800"'])
def test_a_file_that_is_no_plan_is_one_line(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from memserve.serve.__main__ import main

    (tmp_path / "plan.json").write_text(text)
    assert main([str(tmp_path / "plan.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_dry_run_shows_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from memserve.serve.__main__ import main

    env = {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert (
        main([_file(tmp_path, command=[*GOOD, "--served-model-name", "a b\x1b[31m"], env=env), "--dry-run"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "CUDA_VISIBLE_DEVICES=0,1 vllm serve tiny" in shown
    assert "\x1b" not in shown


def test_a_file_that_lies_here_is_started_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "x-q4.gguf").write_text("")
    command = ["python", "-m", "llama_cpp.server", "--model", str(tmp_path / "x-q4.gguf")]
    assert planned.read(_file(tmp_path, command=command))["plan"]["command"] == command


SECRETS = (
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "ANTHROPIC_API_KEY",
    "GITHUB_TOKEN",
    "DB_PASSWORD",
    "MY_OWN",
    "WANDB_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_SECRET",
    "VLLM_API_KEY",
)
KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "CUDA_HOME",
    "LD_LIBRARY_PATH",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "NCCL_DEBUG",
    "VLLM_LOGGING_LEVEL",
    "https_proxy",
    "HTTP_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "XDG_CACHE_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
)


def test_an_engine_sees_what_it_needs_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, *KEPT, "HF_TOKEN"):
        monkeypatch.setenv(name, "x")
    given = inherited(("VLLM_",))
    assert [name for name in (*SECRETS, "HF_TOKEN") if name in given] == []
    assert [name for name in KEPT if name not in given] == []
    assert "HF_TOKEN" in inherited(downloads=True)
    assert "MY_OWN" in inherited(also=("MY_OWN",))


def test_a_started_engine_has_only_that(
    vllm: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    with start(vllm, timeout=120) as server:
        seen = Path(f"/proc/{server.pid}/environ").read_text()
    assert "sk-secret" not in seen
    assert "hf-secret" in seen
    with start(["vllm", "serve", str(tmp_path)], timeout=120) as server:
        assert "hf-secret" not in Path(f"/proc/{server.pid}/environ").read_text()


def test_a_key_file_that_is_a_link_is_refused_before_anything_starts(vllm: list[str], tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "key").symlink_to(target)
    words = [sys.executable, "-m", "memserve.serve", _file(tmp_path, command=vllm)]
    done = subprocess.run([*words, "--key-file", str(tmp_path / "key")], capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert (done.returncode, target.read_text()) == (2, "mine"), done.stderr
    unjudged, refused = done.stderr.splitlines()
    assert "whether it fits was not judged" in unjudged
    assert "it is a link" in refused


def test_every_backend_says_what_loads_code() -> None:
    from memserve.engines.backend import server_of

    for name in ("vllm", "sglang", "lmdeploy", "hf", "ascend"):
        server = server_of(installed.named(name))
        assert server is not None
        assert "trust-remote-code" in server.loads_code


def test_each_of_them_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
    from memserve.engines.backend import server_of

    tried = 0
    for name in installed.plannable():
        server = server_of(installed.named(name))
        for row in server.loads_code if server else ():
            flag, where, words = row.partition("=")
            value = f'{{"x": "x{words}x"}}' if where else "x"
            for spelled in (flag.replace("_", "-"), flag.replace("-", "_")):
                for end in (
                    [f"--{spelled}", value],
                    [f"--{spelled}={value}"],
                    [f"--{spelled}.x{words}x", "x"],
                ):
                    start = [*server.program.starts[0], *["m"] * bool(where)]
                    with pytest.raises(InvalidInput, match="would not write"):
                        planned.read(_file(tmp_path, command=[*start, *end]))
                    tried += 1
    assert tried > 40
