"""A launch command taken apart as the engine's own parser would, and judged."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memserve
from memserve.engines.command import Grammar, integer, read, split
from memserve.engines.install import method
from memserve.errors import InvalidInput, MemserveError, UnknownName
from memserve.plan.__main__ import main
from memserve.plan.answer import checked
from memserve.plan.query import Query
from memserve_sglang.launch import parse as sglang
from memserve_vllm.launch import parse as vllm

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama") / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return str(path)


def asked(line):
    name, deployment = vllm(split(line))
    return name, deployment


# ---------------------------------------------------------------- spellings


@pytest.mark.parametrize(
    "line",
    [
        "vllm serve M --tensor-parallel-size 2 --max-model-len 8192",
        "vllm serve M -tp 2 --max-model-len=8192",
        "vllm serve M -tp=2 --max_model_len 8192",
        "vllm serve --tensor_parallel_size=2 --max-model-len 8K M",
        "vllm serve --model M --tensor-parallel 2 --max-model-len 8192",
        "CUDA_VISIBLE_DEVICES=0,1 nohup vllm serve M -tp 2 --max-model-len 8192",
        "python -m vllm.entrypoints.openai.api_server --model M -tp 2 --max-model-len 8192",
        "python3 -u -m vllm.entrypoints.openai.api_server --model=M -tp=2 --max-model-len 8192",
        "/opt/venv/bin/vllm serve M \\\n  -tp 2 \\\n  --max-model-len 8192",
        "vllm serve M -tp 4 --max-model-len 1024 -tp 2 --max-model-len 8192",
    ],
)
def test_every_spelling_says_the_same(line):
    name, deployment = asked(line)
    assert (name, deployment.layout.tensor, deployment.context) == ("M", 2, 8192)


@pytest.mark.parametrize(
    "line",
    [
        "python -m sglang.launch_server --model-path M --tp-size 2 --context-length 8192",
        "python3 -m sglang.launch_server --model M --tp 2 --context-length=8192",
        "python -m sglang.launch_server --model-path=M --tensor-parallel-size 2 --context-length 8192",
        "python -m sglang.launch_server --tp-size=2 --context-len 8192 --model-path M --trust-remote-code",
    ],
)
def test_every_spelling_of_sglang(line):
    name, deployment = sglang(split(line))
    assert (name, deployment.layout.tensor, deployment.context) == ("M", 2, 8192)


def test_switches_take_no_value_and_may_be_negated():
    _, deployment = asked("vllm serve --enforce-eager --trust-remote-code M --no-enable-prefix-caching")
    assert deployment.eager
    assert deployment.option("enable-prefix-caching") == "false"
    assert deployment.option("trust-remote-code") == "true"


def test_json_values_and_lists_are_kept_whole():
    line = """vllm serve M --hf-overrides '{"rope_scaling": {"factor": 2}}' --served-model-name a b -tp 2"""
    _, deployment = asked(line)
    assert json.loads(deployment.option("hf-overrides"))["rope_scaling"]["factor"] == 2
    assert deployment.option("served-model-name") == "a b"
    assert deployment.layout.tensor == 2


def test_every_flag_that_decides_memory():
    _, deployment = asked(
        "vllm serve M -tp 2 -pp 3 -dp 4 --enable-expert-parallel --gpu-memory-utilization 0.85 "
        "--max-num-seqs 64 --max-num-batched-tokens 4096 --block-size 32 --kv-cache-dtype fp8 --dtype half "
        "--quantization awq_marlin --kv-cache-memory-bytes 8G -O0"
    )
    layout = deployment.layout
    assert (layout.tensor, layout.pipeline, layout.data, layout.expert) == (2, 3, 4, True)
    assert (deployment.utilization, deployment.max_sequences, deployment.max_batched_tokens) == (
        0.85,
        64,
        4096,
    )
    assert (deployment.block_size, deployment.kv_dtype, deployment.dtype) == (32, "fp8", "half")
    assert (deployment.quantization, deployment.option("quantization")) == ("awq", "awq_marlin")
    assert (deployment.kv_bytes, deployment.eager) == (8 * 2**30, True)


@pytest.mark.parametrize(
    ("flags", "eager"),
    [
        ("-O0", True), ("-O 0", True), ("-O3", False), ("-O.level=3", False), ("", False),
        ("-O.cudagraph_mode=NONE", True), ("--compilation-config.cudagraph_mode NONE", True),
        ("""--compilation-config '{"cudagraph_mode": "NONE"}'""", True), ("-cc '{}'", False),
        ("""-O '{"cudagraph_mode": "FULL"}'""", False), ("--compilation-config 3", False),
    ],
)  # fmt: skip
def test_what_turns_graphs_off(flags, eager):
    assert asked(f"vllm serve M {flags}")[1].eager is eager


def test_dp_attention_shares_the_tensor_ranks():
    _, deployment = sglang(
        split("python -m sglang.launch_server --model M --tp 16 --dp 8 --enable-dp-attention")
    )
    assert (deployment.layout.cards, deployment.layout.attention_data) == (16, 8)


def test_a_config_file_speaks_where_the_line_does_not(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text(
        "# ours\ntensor-parallel-size: 4\nmax_model_len: 4096 # tokens\nenforce-eager: true\n",
        encoding="utf-8",
    )
    _, deployment = asked(f"vllm serve M --config {path} --max-model-len 8192")
    assert (deployment.layout.tensor, deployment.context, deployment.eager) == (4, 8192, True)


@pytest.mark.parametrize(
    ("text", "number"), [("8k", 8000), ("8K", 8192), ("1.5k", 1500), ("2M", 2**21), ("131072", 131072)]
)
def test_human_numbers(text, number):
    assert integer(text, "--x") == number


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("bitsandbytes", "nf4"), ("gptq_marlin", "gptq"), ("awq_marlin", "awq"), ("fp8", "fp8"),
        ("fbgemm_fp8", "fp8"),
        ("modelopt NVFP4", "nvfp4"), ("modelslim", "w8a8"), ("compressed-tensors", "none"), (None, "none"),
    ],
)  # fmt: skip
def test_quantization_words(word, known):
    assert method(word) == known


# ---------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    "line",
    [
        "", "   ", "ls -l", "vllm", "vllm bench throughput", "vllm serve", "vllm serve M N", "vllm serve 'M",
        "vllm serve M --tensor-parallel-size two", "vllm serve M -tp 0", "vllm serve M --max-model-len",
        "vllm serve M --cpu-offload-gb much", "vllm serve M --gpu-memory-utilization 1.5",
        "vllm serve M --gpu-memory-utilization nan",
        "vllm serve M --config /no/such/file.yaml", "python -m http.server", "python -m sglang.launch_server",
        "python -m sglang.launch_server --model M --mem-fraction-static x",
    ],
)  # fmt: skip
def test_malformed_commands_are_refused_in_one_line(line):
    with pytest.raises(InvalidInput) as caught:
        memserve.plan.check(line, "1xH100")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        words = split(f"vllm serve M {text}")
        vllm(words)
    except MemserveError as error:
        assert len(str(error)) <= 300


@given(st.lists(st.text(max_size=20), max_size=12))
def test_any_words_are_taken_apart(words):
    grammar = Grammar(switches=frozenset({"on"}), known=frozenset({"name"}))
    try:
        values = [*read(words, grammar).options.values()]
    except InvalidInput as refused:
        values = [str(refused)]
    assert all(isinstance(value, str) for value in values)


# ---------------------------------------------------------------- verdicts


def test_a_start_that_runs(llama):
    plan = memserve.plan.check(f"vllm serve {llama} --max-model-len 8192", "1xH100", engine_version="0.19.0")
    assert (plan.fits, plan.outcome) == (True, "runs")
    assert plan.kv_cache_tokens > 400_000
    assert plan.memory_gib_per_card["weights"] == pytest.approx(14.99, abs=0.01)


def test_what_does_not_fit_still_states_its_memory(llama):
    plan = memserve.plan.check(f"vllm serve {llama}", "1xRTX3090", engine_version="0.19.0")
    assert (plan.fits, plan.outcome) == (False, "refused")
    assert "131,072 tokens" in plan.reasons[0]
    assert set(plan.memory_gib_per_card) == {
        "usable", "weights", "activation", "non_torch", "graphs", "kv_cache", "free",
    }  # fmt: skip


def test_weights_beyond_the_card_are_out_of_memory(llama):
    plan = memserve.plan.check(f"vllm serve {llama} --dtype half", "1xRTX4060", engine_version="0.19.0")
    assert plan.outcome == "out_of_memory"


def test_rules_speak_before_memory(llama):
    plan = memserve.plan.check(f"vllm serve {llama} -tp 3", "3xRTX3090", engine_version="0.19.0")
    assert plan.outcome == "refused"
    assert "3" in plan.reasons[0]


@pytest.mark.parametrize(
    "version",
    [None, "0.6.4.x (by log format)", "Jan 2025 main", "0.1.dev15917+g0a6396b45",
     "0.26.1rc1.dev156+g0eec856cc.d20260731", "0.2.x (Dec 2023)",
     "0.7.x (Feb 2025)", "2025", "unknown", "v0.19.1", "999.0"],
)  # fmt: skip
def test_any_version_is_judged_by_the_nearest_row(llama, version):
    plan = memserve.plan.check(
        f"vllm serve {llama} --max-model-len 4096", "1xA100-80GB", engine_version=version
    )
    assert plan.outcome == "runs"


def test_the_total_that_the_engine_sees(llama):
    line = f"vllm serve {llama} --max-model-len 4096 --gpu-memory-utilization 0.9"
    plan = memserve.plan.check(line, "1xH100", engine_version="0.19.0", memory_gib_per_card=40)
    assert plan.memory_gib_per_card["usable"] == pytest.approx(36.0, abs=0.01)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidInput):
            memserve.plan.check(line, "1xH100", memory_gib_per_card=wrong)


def test_vllm_on_an_ascend_card_is_vllm_ascend(llama):
    plan = memserve.plan.check(f"vllm serve {llama} --max-model-len 8192", "1x910B2")
    assert plan.backend == "ascend"
    assert plan.kv_cache_tokens % 128 == 0


def test_across_nodes_without_node_flags(llama):
    line = f"python -m sglang.launch_server --model-path {llama} --tp 8 --pp-size 2 --context-length 8192"
    assert memserve.plan.check(line, "2x8xH100").outcome == "runs"


def test_an_automatic_length_takes_what_fits(llama):
    plan = memserve.plan.check(
        f"vllm serve {llama} --max-model-len auto", "1xRTX3090", engine_version="0.19.0"
    )
    assert plan.outcome == "runs"
    assert 8192 < plan.context < 131072


@pytest.mark.parametrize(
    ("flags", "at_once", "tokens"),
    [("-c 8192", 1, 8192), ("-c 8192 -np 4", 4, 8192), ("-c 16384 -np 2", 2, 16384)],
)
def test_a_server_answers_as_many_as_its_command_sets_aside(flags, at_once, tokens):
    plan = memserve.plan.check(
        f"llama-server -m qwen3-8b-q4_k_m.gguf -ngl 99 {flags}", "1xRTX4090", concurrency=8
    )
    assert (plan.max_concurrency, plan.kv_cache_tokens) == (at_once, tokens)


def test_a_context_that_the_pool_does_not_hold_is_said():
    line = "python -m sglang.launch_server --model-path Qwen/Qwen3-8B --mem-fraction-static 0.9"
    plan = memserve.plan.check(line, "1xRTX4090")
    assert plan.fits and plan.max_concurrency < 1
    assert plan.reasons[0].startswith(
        "it starts, but a request of the full context of 40,960 tokens does not fit"
    )


def test_more_cards_than_there_are(llama):
    assert memserve.plan.check(f"vllm serve {llama} -tp 4", "2xH100").outcome == "refused"


@pytest.mark.parametrize("command", [None, 7, {"vllm": "serve"}])
def test_commands_of_another_type_are_refused(command):
    with pytest.raises(InvalidInput):
        memserve.plan.check(command, "1xL4")


MISSES = {
    "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 131072": "2xL4",
    "vllm serve Qwen/Qwen3-8B --max-model-len 40960": "8xV100",
    "vllm serve Qwen/Qwen3-32B -tp 2": "4xL4",
    "python -m sglang.launch_server --model-path Qwen/Qwen3-32B --context-length 40960": "2xA100-40GB",
    "llama-server -hf lmstudio-community/Llama-3.3-70B-Instruct-GGUF:Q4_K_M -c 8192 -np 2": "1xRTX4090",
}


@pytest.mark.parametrize(("command", "gpus"), MISSES.items())
def test_each_change_that_a_check_names_was_judged(command: str, gpus: str) -> None:
    named = [one.partition(":")[0] for one in checked(memserve.plan.check(command, gpus)).remedies]
    assert named and named[-1].startswith("memserve plan ")
    for change in named[:-1]:
        version = change.removeprefix("--engine-version ") if change.startswith("--engine-version") else None
        words = command if version else f"{command} {change}"
        assert memserve.plan.check(words, gpus, engine_version=version).fits, change


@pytest.mark.parametrize(
    "wanted",
    [{"tpot": 10}, {"ttft": 100}, {"concurrency": 200}, {"context": 32768}, {"tpot": 15, "concurrency": 4}],
)
def test_a_command_that_starts_and_falls_short_names_a_plan_that_does_not(wanted: dict[str, int]) -> None:
    command, gpus = "vllm serve Qwen/Qwen3-32B -tp 2 --max-model-len 8192", "2xA100-80GB"
    told = checked(memserve.plan.check(command, gpus), Query.of(**wanted))
    words = shlex.split(told.remedies[-1].rpartition(": ")[0])
    assert not told.fits and words[:2] == ["memserve", "plan"] and main(words[2:]) == 0


QWEN, LONG = "vllm serve Qwen/Qwen3-8B", "--max-model-len 131072"
YARN = '{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32768}'


@pytest.mark.parametrize(("command", "rule"), [
    (f"{QWEN} {LONG}", "context"), (f"{QWEN} {LONG} --hf-overrides '{YARN}'", ""),
    (f"VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 {QWEN} {LONG}", ""),
    (f"VLLM_ALLOW_LONG_MAX_MODEL_LEN=0 {QWEN} {LONG}", "context"),
    ("python -m sglang.launch_server --model-path Qwen/Qwen3-8B --context-length 131072", "context"),
    ("python -m sglang.launch_server --model-path Qwen/Qwen3-8B --context-length 131072"
     f" --json-model-override-args '{YARN}'", ""),
    (f"{QWEN} --max-model-len 8192 --max-num-batched-tokens 1024 --max-num-seqs 2048", "batch"),
    (f"{QWEN} --max-model-len 8192 --max-num-batched-tokens 2048 --max-num-seqs 2048", ""),
])  # fmt: skip
def test_a_stretched_context_is_not_refused_and_a_step_too_small_is(command: str, rule: str) -> None:
    assert memserve.plan.check(command, "1xH100").rule == rule


QUANTIZED = ("Qwen/Qwen3-8B-AWQ", "JunHowie/Qwen3-8B-GPTQ-Int4", "Qwen/Qwen3-8B-FP8")


@pytest.mark.parametrize(
    "word", ["awq", "awq_marlin", "gptq", "gptq_marlin", "fp8", "compressed-tensors", "bitsandbytes"]
)
@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", *QUANTIZED])
@pytest.mark.parametrize(
    "start",
    ["vllm serve {} --max-model-len", "python -m sglang.launch_server --model-path {} --context-length"],
)
def test_a_method_is_the_checkpoints_own_or_made_while_loading(word: str, model: str, start: str) -> None:
    """Engines compare `--quantization` with the checkpoint's config, and find none of 16-bit weights."""
    plan = memserve.plan.check(f"{start.format(model)} 4096 --quantization {word}", "1xH100")
    kind, stored = word.partition("_")[0], plan.model.quantization
    loads = (
        kind in ("fp8", "bitsandbytes")
        if stored is None
        else kind not in {"awq", "gptq", "fp8"} - {stored.method}
    )
    assert plan.fits is loads, plan.reasons
    assert loads or any(f"--quantization {word}" in one for one in plan.reasons)


def test_a_method_that_nobody_knows_is_not_counted() -> None:
    plan = memserve.plan.check(
        "vllm serve Qwen/Qwen3-8B --max-model-len 4096 --quantization torchao", "1xH100"
    )
    assert plan.fits and [one.name for one in plan.not_counted] == ["quantization"]


@pytest.mark.parametrize(
    "end",
    [
        " > log.txt 2>&1 &",
        " 2>&1 | tee -a log.txt",
        " &> out.log",
        " >> a.log",
        " &",
        " 2> a.log",
        " 1>a 2>b",
    ],
)
@pytest.mark.parametrize("last", ["--api-key 'a 2>b'", "--tensor-parallel-size 2", "-tp 1"])
def test_where_the_output_goes_changes_nothing(end: str, last: str) -> None:
    line = f"vllm serve Qwen/Qwen3-8B --max-model-len 8192 {last}"
    plain, ended = memserve.plan.check(line, "2xL4"), memserve.plan.check(line + end, "2xL4")
    assert ended.memory_gib_per_card == plain.memory_gib_per_card and ended.command == plain.command
    for other in (" && echo", "; rm x", " | sh", " < x", " > a b", " > a; b"):
        with pytest.raises(InvalidInput, match="holds the shell's"):
            memserve.plan.check(line + other, "1xL4")


@pytest.mark.parametrize("path", ["/models/Qwen3-8B", "/root/hub/Qwen/Qwen3-8B/", "./elsewhere/Qwen3-8B-AWQ"])
def test_a_path_in_a_container_is_a_model_by_its_name(path: str) -> None:
    plan = memserve.plan.check(f"vllm serve {path} --max-model-len 8192", "1xL4")
    named = memserve.plan.check(
        f"vllm serve Qwen/{path.rstrip('/').rpartition('/')[2]} --max-model-len 8192", "1xL4"
    )
    assert plan.memory_gib_per_card == named.memory_gib_per_card and plan.model.id == path
    assert any("it is not here" in one for one in plan.reasons)
    with pytest.raises(UnknownName, match="no such file or folder"):
        memserve.plan.check("vllm serve /models/nobody-knows", "1xL4")
