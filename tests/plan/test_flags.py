"""Every flag of a command is decided: refused, counted, known to change no byte, or named in not_counted."""

from __future__ import annotations

import io
import json
import runpy
import shlex
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memserve
from memserve.engines import installed
from memserve.engines.command import masked, masked_text, read, shown
from memserve.engines.flags import UNKNOWN, flags_of
from memserve.errors import InvalidInput, UnknownName
from memserve.plan.__main__ import main as planning
from memserve.serve.__main__ import main as serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.engines.flags import FlagTable

ROOT = Path(__file__).parents[2]
DRAWN = ("vllm", "ascend", "sglang", "lmdeploy", "hf", "llamacpp")
PACKAGES = {"vllm": "vllm", "sglang": "sglang", "lmdeploy": "lmdeploy", "hf": "transformers"}
MISSPELT = 400
"""Misspellings of one engine's flags."""
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def table(backend: str) -> FlagTable:
    found = flags_of(installed.named(backend))
    assert found is not None
    return found


@pytest.mark.parametrize("backend", DRAWN)
def test_each_flag_has_one_fate_and_one_kind(backend: str) -> None:
    flags = table(backend)
    fates = (flags.counted, flags.no_bytes, frozenset(flags.not_counted))
    assert [name for name in flags.names if sum(name in fate for fate in fates) != 1] == []
    grammar = flags.grammar
    kinds = (grammar.switches, grammar.lists, grammar.known)
    assert [name for name in flags.names if sum(name in kind for kind in kinds) != 1] == []
    spoken = (
        {*flags.needs, *flags.needs.values()}
        | {*flags.assumed}
        | {*flags.instead}
        | {*grammar.aliases.values()}
    )
    assert spoken <= flags.names == flags.spans.keys()
    assert {*flags.instead.values()} <= flags.names | grammar.aliases.keys()
    assert not grammar.aliases.keys() & flags.names


@pytest.mark.parametrize("backend", DRAWN)
def test_each_flag_stands_in_some_release_and_a_refusal_names_it(backend: str) -> None:
    flags = table(backend)
    for name in flags.names:
        has = [release for release in flags.releases if flags.has(name, release)]
        assert has, name
        for release in flags.releases:
            said = flags.lacking(name, release)
            assert bool(said) == (release not in has)
            assert not said or (has[0] in said and has[-1] in said), said


def misspellings(flags: FlagTable) -> Iterator[tuple[str, str]]:
    """A letter dropped, doubled, or swapped with the next; none that the parser itself would take."""
    every, random = flags.grammar.names, Random(9)
    for _ in range(MISSPELT):
        name = random.choice(sorted(one for one in flags.names if len(one) > 3))
        place = random.randrange(1, len(name))
        swapped = name[:place] + name[place : place + 2][::-1] + name[place + 2 :]
        word = random.choice((name[:place] + name[place + 1 :], name[:place] + name[place - 1 :], swapped))
        taken = word.endswith("-") or word.startswith("no-") or any(one.startswith(word) for one in every)
        if not taken:
            yield name, word


@pytest.mark.slow
@pytest.mark.parametrize("backend", DRAWN)
def test_a_misspelt_flag_is_refused_with_the_flag_that_was_meant(backend: str) -> None:
    flags, tried = table(backend), 0
    for name, word in misspellings(flags):
        tried += 1
        with pytest.raises(UnknownName) as caught:
            read([f"--{word}", "1"], flags.grammar)
        assert f"--{name}" in caught.value.suggestions, word
        assert len(str(caught.value)) <= 300
    assert tried > MISSPELT / 4


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"vllm serve {LLAMA} --device cuda --foo-bar 3", "no release of vLLM has --foo-bar"),
        ("vllm serve Qwen/Qwen3-32B --tensor-paralel-size 2", "did you mean --tensor-parallel-size"),
        (f"vllm serve {LLAMA} --max-num 3", "--max-num-seqs"),
        (f"python -m sglang.launch_server --model-path {LLAMA} --mem-fracton-static 0.8", "--mem-fraction-"),
        (f"lmdeploy serve api_server {LLAMA} --sesion-len 4096", "--session-len"),
        (f"transformers serve {LLAMA} --qantization bnb-4bit", "--quantization"),
        (f"llama-server -hf {LLAMA} --parralel 4", "--parallel"),
        (f"vllm serve {LLAMA} --enable-lora --max-lora-rank 1000", "512, not 1000"),
        ("ollama run nobodys-model", "settles both"),
        ("mindieservice_daemon", "config.json"),
        ("docker run", "image"),
        ("docker run ghcr.io/huggingface/text-generation-inference --model-id x", "no backend knows"),
    ],
)  # fmt: skip
def test_what_no_release_has_is_malformed(command: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        memserve.plan.check(command, "1xH100")


@pytest.mark.parametrize(("named", "model", "level"), [
    ("llama3.1:70b-instruct-q4_K_M", "llama-3.1-70b", "gguf-q4_k_m"),
    ("llama3.1:8b", "llama-8b", "gguf-q4_k_m"), ("llama3:latest", "llama-3-8b", "gguf-q4_k_m"),
    ("deepseek-r1", "qwen3-8b", "gguf-q4_k_m"), ("smollm2", "smollm2-1.7b", "gguf-q8_0"),
    ("qwen2.5:7b-instruct-q8_0", "qwen2.5-7b", "gguf-q8_0"),
    ("gemma3:27b-it-qat", "gemma-3-27b", "gguf-q4_0"),
    ("llama3.1:8b-instruct-fp16", "llama-8b", "gguf-f16"), ("gpt-oss:20b", "gpt-oss-20b", "gguf-mxfp4"),
    ("deepseek-r1:14b", "qwen2.5-14b", "gguf-q4_k_m"),
    ("hf.co/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:IQ4_XS", "llama-8b", "gguf-iq4_xs"),
    ("hf.co/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "llama-8b", "gguf-q4_k_m"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["ollama run", "ollama pull", "docker run --gpus=all ollama/ollama run"])
def test_an_ollama_command_with_a_tag_says_model_and_level(
    verb: str, named: str, model: str, level: str
) -> None:
    plan = memserve.plan.check(f"{verb} {named}", "1xH100")
    assert plan.reasons[0].startswith("shapes of ")
    assert (plan.backend, plan.quantization) == ("llamacpp", level)
    assert plan.model.parameters == memserve.plan.best(model, "8xH100").model.parameters
    assert plan.command == memserve.plan.check(plan.command, "1xH100").command


@pytest.mark.parametrize(
    "level", ["IQ4_XS", "IQ3_M", "IQ2_XXS", "UD-Q4_K_XL", "Q6_K_L", "Q5_K_S", "BF16", "Q8_0"]
)
def test_a_gguf_file_is_read_by_name_at_every_level(level: str) -> None:
    file = memserve.plan.best(f"Qwen3-8B-{level}.gguf", "1xH100")
    repository = memserve.plan.best(f"unsloth/Qwen3-8B-GGUF:{level}", "1xH100")
    assert file.quantization == repository.quantization
    assert file.quantization.split("-")[1][:3] in level.lower()
    assert file.memory_gib_per_card["weights"] == repository.memory_gib_per_card["weights"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("flag", "version", "said"),
    [
        ("--swap-space 4", "0.33.0", "0.5.5 to 0.14.1 have it"),
        ("--swap-space 4", "0.14.1", ""),
        ("--guided-decoding-backend xgrammar", "0.12.0", "now --structured-outputs-config"),
        ("--runner generate", "0.6.4", "to 0.33.0 have it"),
        ("--use-v2-block-manager", None, "have it"),
        ("--lora-modules a=b", None, "without --enable-lora"),
        ("--lora-modules a=b --enable-lora", None, ""),
        ("--enable-auto-tool-choice", None, "without --tool-call-parser"),
    ],
)  # fmt: skip
def test_what_another_release_has_is_refused(flag: str, version: str | None, said: str) -> None:
    plan = memserve.plan.check(
        f"vllm serve {LLAMA} --max-model-len 8192 {flag}", "1xH100", engine_version=version
    )
    assert (plan.outcome, plan.rule) == (("refused", "flag") if said else ("runs", ""))
    assert said in plan.reason
    assert plan.memory_gib_per_card is not None


@pytest.mark.parametrize(
    ("flags", "left_out"),
    [
        ("--speculative-config {}", ["speculative-config"]),
        ("--enable-eplb --port 80 --api-key k", ["enable-eplb"]),
        ("--no-enable-eplb --load-format auto --seed 1", []),
        ("--hf-overrides.rope_scaling x --attention-backend FLASHINFER", ["hf-overrides.rope-scaling",
                                                                         "attention-backend"]),
    ],
)  # fmt: skip
def test_what_costs_bytes_and_is_not_added_up_is_named(flags: str, left_out: list[str]) -> None:
    plan = memserve.plan.check(f"vllm serve {LLAMA} --max-model-len 8192 {flags}", "1xH100")
    assert [one.name for one in plan.not_counted] == left_out
    assert plan.bare()["not_counted"] == [
        {"name": one.name, "reason": one.reason} for one in plan.not_counted
    ]
    assert all(one.name in str(plan) for one in plan.not_counted)
    json.dumps(plan.to_dict())


def test_a_fixed_number_of_blocks_fixes_the_tokens() -> None:
    plan = memserve.plan.check(
        f"vllm serve {LLAMA} --max-model-len 8192 --num-gpu-blocks-override 1000", "1xH100"
    )
    assert (plan.kv_cache_tokens, plan.not_counted) == (16_000, ())


def test_a_backend_without_a_table_tells_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memserve.plan.checking.flags_of", lambda _: None)
    plan = memserve.plan.check(f"vllm serve {LLAMA} --max-model-len 8192 --seed 1", "1xH100")
    assert {one.reason for one in plan.not_counted} == {UNKNOWN}
    assert [one.name for one in plan.not_counted] == ["seed"]  # the length is as a plan writes it


CONTAINERS = {
    f"docker run --runtime nvidia --gpus all -v ~/.cache:/root -p 8000:8000 --ipc=host -e A=b "
    f"vllm/vllm-openai:v0.19.1 --model {LLAMA} -tp 2": ("vllm", "0.19.1", 2),
    f"sudo docker run -itd --rm --gpus=all vllm/vllm-openai:latest {LLAMA} -tp 2": ("vllm", "0.33.0", 2),
    f"podman run --entrypoint python3 docker.io/vllm/vllm-openai:v0.12.0 "
    f"-m vllm.entrypoints.openai.api_server --model {LLAMA} -tp 2": ("vllm", "0.12.0", 2),
    f"docker run --gpus all --shm-size 32g lmsysorg/sglang:v0.5.7-cu126 python3 -m sglang.launch_server "
    f"--model-path {LLAMA} --tp 2": ("sglang", "0.5.7", 2),
    f"docker run nvcr.io/nvidia/vllm:25.09-py3 vllm serve {LLAMA} -tp 2": ("vllm", "0.33.0", 2),
    f"docker run localhost:5000/own/vllm vllm serve {LLAMA} -tp 2": ("vllm", "0.33.0", 2),
    f"docker run lmsysorg/sglang bash -c 'A=b vllm serve {LLAMA} -tp 2'": ("vllm", "0.33.0", 2),
}  # fmt: skip


@pytest.mark.parametrize("command", CONTAINERS)
def test_the_command_in_a_container_is_read_with_its_release(command: str) -> None:
    plan = memserve.plan.check(command, "2xH100", engine_version=None)
    backend, version, tensor = CONTAINERS[command]
    assert (plan.backend, plan.engine_version, plan.tensor_parallel) == (backend, version, tensor)
    assert (plan.rule, plan.not_counted) == ("", ())
    assert ("A=b" in command) == (("A", "b") in plan.deployment.env)


def test_what_is_assumed_is_asked_of_the_image_and_its_variables() -> None:
    line = f"--model {LLAMA} --max-model-len 8192"
    ways = {
        f"vllm serve {line}": "pytorch",
        f"docker run --gpus all vllm/vllm-openai:v0.10.2 {line}": "flashinfer",
        f"docker run -e VLLM_USE_FLASHINFER_SAMPLER=0 vllm/vllm-openai:v0.10.2 {line}": "pytorch",
        f"docker run --env=VLLM_USE_FLASHINFER_SAMPLER=1 own vllm serve {line}": "flashinfer",
    }
    for command, sampler in ways.items():
        plan = memserve.plan.check(command, "1xH100", engine_version="0.10.2")
        assert {one.name: one.value for one in plan.assumed}["sampler"] == sampler, command


def test_keys_are_not_shown() -> None:
    line = f"vllm serve {LLAMA} --api-key secret1 secret2 --hf-token=secret3 --seed 1"
    plan = memserve.plan.check(f"docker run -e HF_TOKEN=secret4 vllm/vllm-openai {line}", "1xH100")
    assert "secret" not in json.dumps(plan.to_dict()) + str(plan)
    assert plan.command[-2:] == ["--seed", "1"]
    said = '{"classifier_from_token":["no"],"eos_token":"</s>"}'
    assert masked(["--hf-overrides", said], {})[0][1] == said


KEY = st.from_regex(r"sk-[A-Za-z0-9+._]{12,30}", fullmatch=True)
NAMES = ("api-key", "api_key", "hf-token", "ssl-keyfile-password", "client-secret", "token", "api-ke")
CARRIERS = (
    "--{0}\0{1}", "--{0}={1}", "-{0}\0{1}", "--{0}\0{1}\0{1}", "-e\0{2}={1}", "--env={2}={1}", "{2}={1}",
    "--extra\0{{\"{3}\": \"{1}\"}}", "bash\0-c\0{2}='{1}' lsx --{0} {1} --seed 1", "https://me:{1}@host.example/x",
)  # fmt: skip


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(CARRIERS), st.sampled_from(NAMES)), min_size=1, max_size=4), KEY,
       st.sampled_from(["vllm serve tiny", "lsx", "docker run i lsx", "vllm", "KEY={} vllm serve", ""]),
       st.booleans())  # fmt: skip
def test_no_key_is_printed_whatever_the_command(carriers: list[tuple[str, str]], key: str, start: str,
                                                serve: bool) -> None:  # fmt: skip
    """Read or not, in an error or in a dry run."""
    parts = [way.format(name, key, name.upper().replace("-", "_"), name.replace("-", "_"))
             for way, name in carriers]  # fmt: skip
    words = [
        *start.format(key).split(),
        *(word for part in parts for word in part.split("\0")),
        "--seed",
        "1",
    ]
    said, out = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(out), redirect_stderr(said):
        file = Path(folder) / "plan.json"
        file.write_text(json.dumps({"command": words, "env": {"HF_TOKEN": key}, "backend": "vllm"}))
        if serve:
            serving([str(file), "--dry-run", "--allow", *words, "HF_TOKEN"])
        else:
            planning(["--check", shlex.join(words), "--gpus", "1xL4"])
    assert key not in said.getvalue() + out.getvalue()
    assert key not in shown(words) + masked_text(" ".join(words))
    assert shown([*words, "--max-model-len", "8192"]).endswith("--seed 1 --max-model-len 8192")


@pytest.mark.parametrize("backend", PACKAGES)
def test_the_table_is_what_the_installed_parser_has(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = find_spec(PACKAGES[backend])
    if spec is None or spec.origin is None:
        pytest.skip(f"{PACKAGES[backend]} is not installed")
    from importlib.metadata import version

    drawn = runpy.run_path(str(ROOT / "benchmarks" / "flags.py"))
    folder = Path(spec.origin).parents[1]
    newest = table(backend).releases[-1]
    if version(PACKAGES[backend].replace("_", "-")) != newest:
        pytest.skip(f"the table's newest release is {newest}")
    drawn["main"](backend, newest, str(folder))
    assert capsys.readouterr().out.strip() == ""
