"""The library takes all that the command line takes, and gives what it prints."""

from __future__ import annotations

import io
import json

import pytest

import memserve
from memserve import files, model, plan
from memserve.errors import DoesNotFit, InvalidInput, UnknownName
from memserve.model import catalogue
from memserve.models import _report
from memserve.plan.__main__ import main
from memserve.plan.candidate import weight_loss
from memserve.plan.page import text
from memserve.plan.query import Query
from memserve.plan.tasks.models import FOUR_BITS, quality
from memserve.plan.tasks.options import ASKED, parser


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main([*words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def same(value: object, text: object) -> bool:
    return json.loads(json.dumps(value)) == text


def test_every_option_of_the_query_is_an_option_of_the_command() -> None:
    names = {action.dest for action in parser()._actions}
    known = set(plan.PlanOptions.__annotations__)
    assert set(ASKED) <= names and set(ASKED) <= known
    assert known - set(ASKED) == {"tensor_parallel", "pipeline_parallel", "data_parallel"}


def test_best_is_the_plan_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--context", "4096", "--concurrency", "4", "--tp", "2", "--objective", "throughput",
             "--workload", "1000:100:50", "--deadline", "12h", "--budget", "9")  # fmt: skip
    found = plan.best("llama-8b", "2xL4", context=4096, concurrency=4, tp=2, objective="throughput",
                      workload="1000:100:50", deadline="12h", budget=9.0)  # fmt: skip
    assert same(found.bare(), printed(capsys, "llama-8b", "--gpus", "2xL4", *words)["plan"])
    long = plan.best("llama-8b", "2xL4", context=4096, concurrency=4, tensor_parallel=2, tp=2)
    assert long.tensor_parallel == 2


@pytest.mark.slow
def test_each_answer_of_the_command_is_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    trained = plan.train("llama-8b", "1xA100", method="qlora", batch=1, checkpointing=True)
    words = ("llama-8b", "--gpus", "1xA100", "--train", "qlora", "batch=1", "checkpointing")
    assert trained.fits and same(trained.to_dict(), printed(capsys, *words))
    pair = plan.pair("llama-8b", "BAAI/bge-m3", "1xA100", context=2048)
    words = ("llama-8b", "--gpus", "1xA100", "--embedder", "BAAI/bge-m3", "--context", "2048")
    assert pair.fits and same(pair.to_dict(), printed(capsys, *words))
    compared = plan.compare("llama-8b", ["1xL4", "openai:gpt-4o-mini"], workload="locomo")
    words = ("llama-8b", "--compare", "1xL4", "openai:gpt-4o-mini", "--workload", "locomo")
    assert compared.fits and same(compared.to_dict(), printed(capsys, *words))
    anywhere = plan.anywhere("llama-8b", quantization="none")
    words = ("llama-8b", "--gpus", "any", "--quantization", "none")
    assert anywhere.fits and same(anywhere.to_dict(), printed(capsys, *words))
    for value in (trained, pair, compared, anywhere):
        assert str(value) and "\n" not in repr(value) and value._repr_html_().startswith("<div>")


@pytest.mark.slow
def test_any_machine_has_a_machine_and_a_plan_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "llama-8b", "--gpus", "any")
    for row in told["machines"]:  # type: ignore[attr-defined]
        assert row["machine"]["card"] == row["card"] and row["plan"]["fits"] and row["plan"]["command"]
    trained = printed(capsys, "llama-8b", "--gpus", "any", "--train", "qlora", "batch=1")
    cards = {row["machine"]["card"]: row for row in trained["machines"]}  # type: ignore[attr-defined]
    assert cards["H100-80GB"]["machine"]["cards_per_node"] == 1
    assert all(
        row["plan"]["memory_gib_per_card"]["needed"] <= row["plan"]["memory_gib_per_card"]["total"]
        for row in cards.values()
    )


@pytest.mark.slow
def test_models_are_a_value() -> None:
    found = plan.models("1xL4", task="embed", context=512)
    assert found.fits and found.plans[0].fits and "embed" in json.dumps(found.to_dict())
    assert {one.model.id for one in found.plans} == {spec.id for spec in found.specs}


def test_published_figures_are_of_models_that_are_known() -> None:
    table = json.loads(files.beside(model.__file__, "data/quality.json"))
    specs = {name: model.load(name) for name in table["models"]}
    assert set(specs) <= {row.id for row in catalogue.rows()}
    assert {key for _, key in table["models"].values()} == set(table["sources"])
    assert [one for one, _ in table["sources"].values() if one not in table["benchmarks"]] == []
    kinds = [(spec.embeds, quality(name)) for name, spec in specs.items()]
    assert [told for embeds, told in kinds if told and embeds != told.benchmark.startswith("MTEB")] == []
    assert sum(told is not None and told.benchmark == "MMLU-Pro" for _, told in kinds) >= 120
    assert sum(embeds for embeds, _ in kinds) >= 30


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "task"), [("1xRTX4090", "embed"), ("1xT4", "generate")])
def test_the_best_model_has_the_highest_published_figure(gpus: str, task: str) -> None:
    done: list[tuple[int, int]] = []
    found = plan.models(gpus, task=task, report=lambda *far: done.append(far))
    assert [far for far, _ in done] == list(range(done[0][1]))
    told = [row["quality"] for row in found.to_dict()["models"]]
    assert any(told) and not all(told)
    order = json.loads(files.beside(model.__file__, "data/quality.json"))["benchmarks"]
    rows = [
        (
            one.checkpoint.bits < 4 or weight_loss(one.checkpoint) > FOUR_BITS,
            order.index(row["benchmark"]) if row else len(order),
            -row["value"] if row else -one.model.parameters,
        )
        for row, one in zip(told, found.plans, strict=True)
    ]
    assert rows == sorted(rows), "by figures of one benchmark; then without; below 4 bits last"
    shown = text(found.sections())
    assert all(f"{row['value']:g} {row['benchmark']}" in shown for row in told if row)
    assert all(row["source"] in shown for row in told if row)


def test_a_terminal_says_how_far_the_search_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        for done in range(3):
            _report(done, 3)
        lines = "\r0 of 3 models\r1 of 3 models\r\033[K"
        assert stream.getvalue() == (lines if stream.isatty() else "")


def test_a_fine_tune_has_no_figure_of_its_base() -> None:
    assert quality("Qwen/Qwen2.5-7B-Instruct") and quality("unsloth/Qwen2.5-7B-Instruct-bnb-4bit") is None


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: plan.best("llama-8b", "1xL4", contxt=5), "context"),
        (lambda: plan.candidates("llama-8b", "1xL4", quantisation="awq"), "quantization"),
        (lambda: plan.train("llama-8b", "1xL4", batsh=2), "batch"),
        (lambda: plan.models("1xL4", objectiv="cost"), "objective"),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_nearest(call: object, meant: str) -> None:
    with pytest.raises(UnknownName) as caught:
        call()  # type: ignore[operator]
    assert meant in str(caught.value) and meant in caught.value.suggestions


@pytest.mark.parametrize(
    "options",
    [
        {"tp": 2, "tensor_parallel": 4},
        {"deadline": "12h"},
        {"workload": 5},
        {"workload": "locomo", "budget": -1},
        {"workload": "locomo", "deadline": float("nan")},
        {"context": "1e3"},
        {"concurrency": True},
    ],
)
def test_what_contradicts_or_is_no_value_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        plan.best("llama-8b", "2xL4", **options)  # type: ignore[arg-type]


def test_numbers_are_taken_as_the_command_line_takes_them() -> None:
    assert Query.of(context="8k", tp="2", ttft="1.5") == Query.of(context=8192, tp=2, ttft=1.5)
    assert memserve.plan.check("transformers serve gpt2", "1xL4", context="1k").context == 1024


def test_what_does_not_fit_has_the_closest_as_a_page() -> None:
    with pytest.raises(DoesNotFit) as caught:
        memserve.plan.best("llama-70b", "1xL4", quantization="none")
    closest = caught.value.closest
    assert isinstance(closest, plan.Plan) and "does not fit" in str(closest) and not closest.fits


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("https://huggingface.co/Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main?x=1", "Qwen/Qwen3-8B"),
        ("Qwen3-8B-AWQ", "Qwen/Qwen3-8B-AWQ"),
        ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_models_by_their_page_or_without_their_owner(name: str, meant: str) -> None:
    assert memserve.model.load(name).id == meant


def test_an_owner_that_nobody_knows_is_answered_with_near_names() -> None:
    with pytest.raises(UnknownName) as caught:
        memserve.model.load("Qwen3-8B-AWX")
    assert any("Qwen3-8B" in name for name in caught.value.suggestions)
