"""`--offload`: what the cards do not hold stays with the processor, at a speed that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

import memserve
from memserve.engines import installed
from memserve.errors import DoesNotFit, InvalidInput, UnknownName
from memserve.hardware import parse
from memserve.hardware.machine import GIB
from memserve.memory import Split, stage_bytes, storage
from memserve.model import load
from memserve.model.spec import parted
from memserve.plan.library import answered
from memserve.plan.query import Query
from memserve.plan.search.judging import held

QUESTIONS = [
    ("llama-70b", "1xRTX4090"), ("llama-70b", "2xRTX3060"), ("qwen3-32b", "1xRTX3060"),
    ("mixtral-8x7b", "1xRTX3090"), ("qwen3-30b-a3b", "1xRTX3060"),
]  # fmt: skip
CHECKED = "llama-server -hf lmstudio-community/Llama-3.3-70B-Instruct-GGUF:Q4_K_M -c 8192 -ngl"


@pytest.mark.parametrize(("model", "gpus"), QUESTIONS)
def test_as_few_layers_as_need_be_stay_with_the_processor(model: str, gpus: str) -> None:
    plan = memserve.plan.best(model, gpus, offload=True)
    away, engine = plan.deployment.host_layers, installed.named(plan.backend)
    assert 0 < away < len(plan.model.blocks)
    fewer = replace(plan.deployment, host_layers=away - 1)
    assert not held(engine, plan.model, plan.machine, fewer).fits
    whole = stage_bytes(plan.model, Split(), storage(plan.model, plan.quantization, plan.dtype))[0]
    assumed = {one["name"]: one["value"] for one in plan.assumptions}
    cards = plan.memory_gib_per_card["weights"] * plan.deployment.layout.pipeline
    assert cards + assumed["host_memory_gib"] >= whole / GIB * 0.95
    assert assumed["host_ram_gib"] >= 64


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("model", "gpus"), QUESTIONS)
def test_the_command_reads_back_to_the_same_figures(model: str, gpus: str) -> None:
    for requests in (1, 2):
        plan = memserve.plan.best(model, gpus, offload=True, concurrency=requests)
        again = memserve.plan.check(plan.command, gpus, context=plan.context, concurrency=requests)
        assert again.memory_gib_per_card == plan.memory_gib_per_card


def test_speed_falls_with_each_layer_that_stays() -> None:
    paces = []
    for gpus in ("2xRTX4090", "1xRTX4090", "1xRTX3060"):
        plan = memserve.plan.best("llama-70b", gpus, quantization="gguf-q4_k_m", offload=True)
        paces.append(plan.speed["output_tokens_per_s"]["likely"])
        spread = plan.speed["tpot_ms"]
        assert spread["low"] < spread["likely"] < spread["high"]
    assert paces[0] > 3 * paces[1] > 3 * paces[2]
    assert 1 < paces[1] < 6  # 20 GB at a desktop's 58 GB/s


def test_a_projector_keeps_16_bits_and_is_counted_where_it_is_loaded() -> None:
    spec = memserve.model.load("qwen2.5-vl-7b")
    sixteen, eyes = storage(spec, "none", "float16"), replace(spec, towers=())
    apart = (stage_bytes(spec, Split(), sixteen)[0] - stage_bytes(eyes, Split(), sixteen)[0]) / GIB
    start = f"llama-server -hf {spec.id}:Q4_K_M -c 4096 -ngl 99"
    seeing, blind = (memserve.plan.check(start + more, "1xL4").to_dict() for more in ("", " --no-mmproj"))
    found = [one["memory_gib_per_card"]["weights"] for one in (seeing, blind)]
    assert found[0] - found[1] == pytest.approx(apart, abs=0.01)
    planned = memserve.plan.best("qwen2.5-vl-7b", "1xL4", backend="llamacpp", context=4096)
    assert "--hf-repo" in planned.command, "llama-server finds the projector of a repository itself"
    made = memserve.plan.best("llava-1.5-7b", "1xL4", backend="llamacpp", context=4096)
    assert made.command[made.command.index("--mmproj") + 1].endswith("/mmproj-F16.gguf")


def test_it_is_asked_for_and_a_miss_names_it() -> None:
    with pytest.raises(DoesNotFit) as missed:
        memserve.plan.best("llama-70b", "1xRTX4090")
    assert "--offload: llamacpp" in (missed.value.hint or "")
    assert memserve.plan.best("llama-8b", "1xRTX4090", offload=True).deployment.host_layers == 0


def test_the_host_must_hold_what_stays() -> None:
    with pytest.raises(DoesNotFit, match="RAM"):
        memserve.plan.best("llama-405b", "1xRTX4090", offload=True)
    small = replace(parse("1xRTX4090"), host_memory=8 * GIB)
    with pytest.raises(DoesNotFit, match=r"8\.00 GiB of RAM"):
        memserve.plan.best("llama-70b", small, offload=True)


def test_a_machine_says_how_much_ram_it_has() -> None:
    for spec in ("1xRTX5090+512GB", "512GB+1xRTX5090", "CPU-512GB+1xRTX5090", "RTX5090 + 512 GB RAM"):
        machine = parse(spec)
        assert (machine.card.name, machine.cards, machine.host_memory) == ("RTX5090", 1, 512 * GIB)
    with pytest.raises(DoesNotFit, match="assumed: say --gpus 1xRTX5090") as missed:
        memserve.plan.best("deepseek-r1", "1xRTX5090", offload=True)
    spec = str(missed.value).partition("say --gpus ")[2].split()[0]
    assert memserve.plan.best("deepseek-r1", spec, offload=True).deployment.host_layers
    with pytest.raises(DoesNotFit, match=r"--gpus 8xRTX4090\+128GB"):
        memserve.plan.best("qwen3-235b", "1xRTX4090+128GB")
    found = answered("qwen3-235b", "1xRTX4090+256GB", Query.of(offload=True)).plan
    assert found is not None and found.checkpoint.make is None  # one that exists, with two layers more there


@pytest.mark.parametrize("model", ["Qwen3-30B-A3B-Q4_K_M.gguf", "Qwen3-235B-A22B-Q4_K_M.gguf"])
def test_experts_that_a_pattern_moves_count_as_those_of_the_switches(model: str) -> None:
    def held(more: str) -> tuple[dict[str, float], dict[str, float]]:
        plan = memserve.plan.check(f"llama-server -m {model} -c 8192 -ngl 99 {more}", "1xRTX4090+512GB")
        return plan.memory_gib_per_card, {one["name"]: one["value"] for one in plan.assumptions}

    assert held("-ot exps=CPU") == held("-ot '.ffn_.*_exps.=CPU'") == held("--cpu-moe")
    assert held("-ot 'blk\\.[0-9]\\.ffn_.*_exps\\.=CPU'") == held("--n-cpu-moe 10")
    kept = "-ot 'blk\\.([0-4])\\.ffn_.*exps=CUDA0' -ot exps=CPU"
    assert held("--cpu-moe")[0]["weights"] < held(kept)[0]["weights"] < held("--n-cpu-moe 10")[0]["weights"]
    assert held("-ot exps=CUDA0") == held("-ot attn=CPU") == held("")


@pytest.mark.parametrize(("said", "share"), [
    ("-ctk q8_0 -ctv q8_0", 1.0625 / 2), ("-ctk q8_0", 3.0625 / 4), ("-ctk f16 -ctv q4_0", 2.5625 / 4),
    ("--cache-type-k f32 --cache-type-v f32", 2), ("-ctk bf16", 1),
])  # fmt: skip
def test_a_cache_is_as_large_as_its_types(said: str, share: float) -> None:
    plain, typed = (memserve.plan.check(f"llama-server -m llama-3.1-8b-Q8_0.gguf -c 32768 -ngl 99 {more}",
                                        "1xRTX4090") for more in ("", said))  # fmt: skip
    ratio = typed.memory_gib_per_card["kv_cache"] / plain.memory_gib_per_card["kv_cache"]
    assert ratio == pytest.approx(share, rel=1e-3) and typed.not_counted == ()
    with pytest.raises(InvalidInput, match="no cache of 'q3'"):
        memserve.plan.check("llama-server -m llama-3.1-8b-Q8_0.gguf -c 4096 -ctk q3", "1xRTX4090")


@pytest.mark.parametrize("kv_dtype", ["fp8", "int8", "fp8_e5m2", "bfloat16"])
def test_a_cache_that_it_cannot_have_is_refused_and_no_error(kv_dtype: str) -> None:
    with pytest.raises(DoesNotFit, match="float16"):
        memserve.plan.best("llama-8b", "1xP40", backend="llamacpp", kv_dtype=kv_dtype)


def test_what_is_passed_over_is_said_truly() -> None:
    found = answered("llama-70b", "1xRTX4090", Query.of(offload=True))
    assert any("not gguf-q8_0: fits, but ranks below: 54 of its" in one for one in found.plan.reasons)
    assert memserve.plan.best("llama-70b", "1xRTX4090", offload=True, quantization="gguf-q8_0").fits


@pytest.mark.parametrize(("layers", "fits"), [(0, True), (40, True), (60, False), (999, False)])
def test_a_command_is_judged_by_the_layers_that_it_puts_on_the_card(layers: int, fits: bool) -> None:
    plan = memserve.plan.check(f"{CHECKED} {layers}", "1xRTX4090")
    assert (plan.fits, plan.not_counted) == (fits, ())


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "gpt-oss-120b", "glm-4.5-air", "deepseek-v2-lite"])
def test_of_a_mixture_the_experts_go_first_and_attention_stays(model: str) -> None:
    spec = load(model)
    for away in (0, 1, len(spec.blocks) // 2, len(spec.blocks)):
        cards, host = parted(spec, away)
        assert cards.parameters + host.parameters == spec.parameters + sum(w.parameters for w in spec.stem)
        assert {w.part for block in host.blocks for w in block.weights} <= {"expert"}
        assert [block.mixer for block in cards.blocks] == [block.mixer for block in spec.blocks]
    whole = parted(spec, 2, whole=True)
    assert len(whole[0].blocks) == len(spec.blocks) - 2 and not whole[0].stem


def test_a_mixture_is_started_with_its_experts_apart() -> None:
    plan = memserve.plan.best("gpt-oss-120b", "1xRTX4090", offload=True)
    words = list(plan.command)
    assert plan.quantization == "gguf-mxfp4" and words[words.index("--n-gpu-layers") + 1] == "999"
    assert words[words.index("--n-cpu-moe") + 1] == str(plan.deployment.host_layers)
    assert "the experts of" in str(plan)
    where = words.index("--n-cpu-moe")
    every = memserve.plan.check([*words[:where], "--cpu-moe", *words[where + 2 :]], "1xRTX4090")
    assert every.memory_gib_per_card["weights"] < plan.memory_gib_per_card["weights"] / 4


@pytest.mark.parametrize(
    ("level", "held"),
    [("Q8_0", "q8_0"), ("Q4_K_M", "q4_k_m"), ("UD-Q4_K_XL", "q4_k_m"), ("Q6_K_L", "q6_k"),
     ("Q8_K_XL", "q8_0"), ("IQ4_XS", "iq4_xs"), ("Q3_K_L", "q3_k_l"), ("Q2_K_XL", "q2_k"), ("BF16", "f16")],
)  # fmt: skip
@pytest.mark.parametrize(
    "repository", ["unsloth/Qwen3-8B-GGUF", "bartowski/Qwen_Qwen3-8B-GGUF", "mradermacher/Qwen3-8B-i1-GGUF"]
)
def test_every_level_of_anybodys_repository_is_read(repository: str, level: str, held: str) -> None:
    plan = memserve.plan.check(f"llama-server -hf {repository}:{level} -c 8192", "1xRTX3090")
    assert plan.quantization == f"gguf-{held}"
    assert plan.model.parameters == load("qwen3-8b").parameters


def test_what_is_no_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidInput, match="no level 'Q9_Z'"):
        memserve.plan.check("llama-server -hf unsloth/Qwen3-8B-GGUF:Q9_Z -c 8192", "1xRTX3090")
    with pytest.raises(UnknownName):
        memserve.plan.check("llama-server -hf unsloth/Nobodys-Model-9B-GGUF:Q4_K_M -c 8192", "1xRTX3090")
