"""Over hundreds of generated questions no answer is worse than that to the same with one option fixed."""

from __future__ import annotations

import random
from collections import Counter
from fnmatch import fnmatchcase as fnmatch

import pytest
from tests.support.questions import (
    Question,
    false_reasons,
    false_remedies,
    fixings,
    order,
    questions,
    wished,
    worse,
)

import memserve
from memserve.hardware.spec import in_nodes
from memserve.memory import formats
from memserve.model import catalogue
from memserve.plan.library import machine_of, model_of
from memserve.plan.query import SHORT, Query
from memserve.plan.search.choice import first, ranked
from memserve.plan.search.offers import consider
from memserve_llamacpp.engine import pattern

EACH = 17
"""Questions of one test, each with one option of every kind fixed."""
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_answer_is_worse_than_with_one_option_fixed(seed: int) -> None:
    chance = random.Random(seed)
    found = [(question, bad) for question in questions(EACH, seed) if (bad := worse(question, chance))]
    assert found == []


@pytest.mark.parametrize("seed", SEEDS)
def test_no_reason_is_false_when_its_subject_is_asked_for(seed: int) -> None:
    counts = [(question, *false_reasons(question)) for question in questions(EACH, seed)]
    assert [(question, wrong) for question, _, wrong in counts if wrong] == []
    assert sum(told for _, told, _ in counts) > EACH / 4


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.slow) if seed else 0 for seed in range(6)]
)
def test_the_same_holds_with_a_wish_more(seed: int) -> None:
    chance = random.Random(seed)
    for question in wished(5, seed):
        assert worse(question, chance) == [], question
        assert false_reasons(question)[1] == [], question
        assert false_remedies(question, {})[1] == [], question


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_found_first_is_the_best_of_all(seed: int) -> None:
    chance, objectives = random.Random(seed), ("quality", "quality", "throughput", "latency")
    for question in questions(EACH, seed):
        query = Query.of(
            **question.options, objective=chance.choice(objectives), offload=not chance.randrange(4)
        )
        model, machine = model_of(question.model, None, None), machine_of(question.gpus)
        every = ranked(consider(model, machine, query), model, machine, query)
        assert first(model, machine, query) == next(iter(every), None), (question, query)


REPOSITORIES = [one.id for row in catalogue.rows() for one in row.checkpoints if "gguf" in one.method]
HELD = sorted(name for name, count in Counter(REPOSITORIES).items() if count > 1)
MANY = ("1xRTX3060", "1xRTX3090", "2xRTX3090", "1xP40", "1xA6000", "M3-Max", "4xA100-80GB", "1xT4", "cpu")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(8))
def test_a_repository_of_several_files_is_planned_with_the_best_that_fits(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(4):
        question = Question(chance.choice(HELD), chance.choice(MANY), {"offload": not chance.randrange(4)})
        levels = memserve.model.load(question.model).levels
        plain, asked = question.best(), {level: question.best(quantization=level) for level in levels}
        for level, plan in asked.items():
            tagged = question._replace(model=f"{question.model}:{level.removeprefix('gguf-').upper()}").best()
            said = [one and (one.command, one.memory_gib_per_card, one.to_dict()["storage"])
                    for one in (plan, tagged)]  # fmt: skip
            assert said[0] == said[1], (question, level)
            if plan is not None and formats.named(level).bits > 4:
                assert plain is not None, (question, level)
                assert plain.deployment.host_layers or order(plain) <= order(plan), (question, level)
        assert false_reasons(question)[1] == []


def test_what_is_rejected_says_what_it_speaks_of() -> None:
    rejected = memserve.plan.best("qwen3-32b", "1xA100-80GB", context=32768, concurrency=8).rejected
    rows = [one.to_dict() for one in rejected]
    assert {row["kv_dtype"] for row in rows} >= {"auto", "fp8"}
    assert all(row["checkpoint"] and row["tensor_parallel"] and row["pipeline_parallel"] for row in rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_would_fit_fits_when_asked(seed: int) -> None:
    chance = random.Random(seed)
    asked = [(one, chance.choice(({}, {}, *fixings(one, chance)))) for one in questions(EACH, seed)]
    counts = [(one, *false_remedies(one, fixed)) for one, fixed in asked]
    assert [(one, wrong) for one, _, wrong in counts if wrong] == []
    assert sum(tried for _, tried, _ in counts) > EACH / 4


def test_training_that_does_not_fit_names_checkpointing() -> None:
    missed = memserve.plan.train("llama-8b", "1xRTX3090", method="qlora")
    assert not missed.fits and "checkpointing" in missed.remedies[0]
    assert memserve.plan.train("llama-8b", "1xRTX3090", method="qlora", checkpointing=True).fits


@pytest.mark.parametrize(("backend", "serves"), [
    ("pangu", False), ("anthropic", False), ("gemini", False), ("openai", True), ("bedrock", True),
])  # fmt: skip
def test_an_open_model_is_planned_where_it_can_be_served(backend: str, serves: bool) -> None:
    assert bool(Question("llama-70b", "1xL4", {}).best(backend=backend)) is serves


@pytest.mark.parametrize("quantization", ["fp8", "w8a8"])
def test_what_llm_compressor_wrote_runs_on_a_cpu(quantization: str) -> None:
    plan = Question("llama-8b", "cpu", {}).best(quantization=quantization, backend="hf")
    assert plan is not None and plan.quantization == quantization


def test_llama_cpp_serves_several_at_once_and_files_in_parts() -> None:
    several = Question("llama-8b", "1xRTX4090", {"context": 8192, "concurrency": 4}).best(backend="llamacpp")
    large = Question("llama-70b", "4xRTX4090", {}).best(backend="llamacpp", quantization="gguf-q8_0")
    assert several is not None and large is not None
    words = dict(zip(several.command[1::2], several.command[2::2], strict=False))
    assert several.command[0] == large.command[0] == "llama-server"
    assert (words["--parallel"], words["--ctx-size"]) == ("4", "32768")
    assert any(word.endswith(":Q8_0") for word in large.command)


@pytest.mark.parametrize(("model", "program"), [
    ("qwen2.5-7b", "llama-server"), ("qwen3-14b", "python"), ("llama-8b", "python"),
    ("falcon3-7b", "llama-server"),
])  # fmt: skip
def test_a_file_of_a_repository_is_asked_for_by_who_finds_it(model: str, program: str) -> None:
    """Some write levels in small letters, or in parts: `llama_cpp.server` knows a name as it stands alone."""
    plan = Question(model, "1xP40", {}).best(backend="llamacpp", quantization="gguf-q8_0")
    assert plan is not None and plan.command[0] == program and not plan.checkpoint.make
    names = ("model-q6_k-00001-of-00002.gguf", "M-Q6_K.gguf", "M.Q6_K.gguf")
    assert all(fnmatch(name, pattern("Q6_K")) for name in names)
    assert not fnmatch("M-Q6_K_L.gguf", pattern("Q6_K"))


@pytest.mark.parametrize("gpus", ["1xL4", "1xRTX3090", "2xRTX3060", "1xA10"])
def test_what_an_encoder_needs_beside_the_pool_is_not_given_away(gpus: str) -> None:
    for model in ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen3-vl-8b", "gemma-3-27b"):
        found = memserve.plan.candidates(model, gpus, backend="sglang")
        assert {one.deployment.utilization for one in found if one.fits} <= {None}


@pytest.mark.parametrize(("gpus", "nodes", "said"), [
    ("16xH100", 2, "1x16xH100-80GB"), ("16x910B2", 2, "1x16x910B2"), ("1x16x910B2", 1, ""), ("16xA3", 1, ""),
    ("2xM3-Max", 2, "one holds one M3-Max"), ("2x8xH100", 2, ""), ("12xA10", 1, ""),
])  # fmt: skip
def test_more_cards_than_a_usual_node_holds_are_of_several(gpus: str, nodes: int, said: str) -> None:
    found = in_nodes(gpus)
    assert found.nodes == nodes and any(said in note for note in found.notes) == bool(said)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(3))
def test_no_answer_on_two_machines_is_lost_that_one_of_them_gives(seed: int) -> None:
    for question in questions(15, 1000 + seed):
        nodes = "2x" if "x" not in question.gpus else "2x" * (question.gpus.count("x") == 1)
        one, both = question, question._replace(gpus=f"{nodes}{question.gpus}")
        if nodes and question.gpus != "cpu" and one.best() is not None:
            assert both.best() is not None, both


WIDER = ("2xTITAN-Xp", "4xArc-B580", "4xP100", "8xRTX4060Ti", "4xRTX2070", "8xRX9070XT", "4x910B4", "2xV100")
SMALL = ("llama-8b", "Qwen/Qwen3-Embedding-4B", "Qwen/Qwen3-Reranker-0.6B", "gemma-3-12b", "qwen3-4b")


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_chosen_is_chosen_when_named_and_less_is_never_answered_worse(seed: int) -> None:
    chance, fits = random.Random(seed), 0
    for _ in range(EACH // 2):
        options = {"context": chance.choice((4096, 8192, 32768)), "concurrency": chance.choice((1, 2, 8))}
        question = Question(chance.choice(SMALL), chance.choice(WIDER), options)
        plan = question.best()
        if plan is None:
            continue
        fits += 1
        for names in (["backend"], ["quantization"], ["pp"], ["dp"], ["tp"]):
            named = question.best(**{name: getattr(plan, SHORT.get(name, name)) for name in names})
            assert named is not None and named.command == plan.command, (question, names)
        if not plan.checkpoint.make:
            words = [*(f"{name}={value}" for name, value in plan.env.items()), *plan.command]
            read = memserve.plan.check(
                words, plan.machine, engine_version=plan.engine_version, **options,  # type: ignore[arg-type]
            )  # fmt: skip
            same = (read.memory_gib_per_card, read.not_counted) == (plan.memory_gib_per_card, ())
            assert same, (question, words)
        for name, value in options.items():
            less = question._replace(options={**options, name: max(1, value // 2)}).best()
            assert less is not None and order(less) <= order(plan), (question, name)
        both = question._replace(gpus=f"2x{question.gpus}").best()
        # a node for one copy: stages over both may be better
        alone = plan.tensor_parallel == plan.machine.cards_per_node
        assert both is not None and (alone or order(both) <= order(plan)), question
    assert fits > 1
