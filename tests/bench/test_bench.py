"""`memserve bench`: times on a clock that jumps, counts against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import virtual

from memserve import registry
from memserve.__main__ import main
from memserve.bench import Level, Report, Target, report
from memserve.bench.asking import Asked, Prompts
from memserve.bench.measuring import ameasure
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.errors import ContextOverflow, EngineFailed, InvalidInput, MemserveError, RemoteError
from memserve.protocol import Capabilities, Completion, Delta, Request, Usage
from memserve.speed import Range, Speed
from memserve.speed.workloads import Workload, find

jsonschema = pytest.importorskip("jsonschema", reason="the extra test has it: engines' environments do not")
if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE_TO_9 = st.integers(1, 9)
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SCHEMA = json.loads(Path(__file__).with_name("report.schema.json").read_text())


@dataclass
class Lawful:
    """An engine whose times follow a law: so long a prompt, so long a token, some tokens in each piece."""

    first: float = 0.2
    a_prompt_token: float = 0.001
    a_token: float = 0.05
    in_a_piece: int = 1
    template: int = 30
    tokens_a_word: float = 1.0
    stream: bool = True
    counts: bool = True
    fails: int = 0
    """Every so many requests one fails, after the warm-up."""
    failure: MemserveError = field(default_factory=lambda: EngineFailed("out of memory"))
    asked: list[Request] = field(default_factory=list)
    any_loop = True

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            backend="lawful", chat=True, raw=True, max_tokens=True, temperature=True, top_p=True, usage=True,
            stream=self.stream,
        )  # fmt: skip

    def tokens(self, request: Request) -> int:
        return self.template + round(self.tokens_a_word * len(str(request.prompt).split()))

    def usage(self, request: Request) -> Usage:
        return Usage(self.tokens(request), request.max_tokens) if self.counts else Usage()

    async def complete(self, request: Request) -> Completion:
        deltas = [delta async for delta in self.astream(request)]
        return Completion(text="".join(delta.text for delta in deltas), usage=self.usage(request))

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        self.asked.append(request)
        number = len(self.asked)
        await asyncio.sleep(self.first + self.a_prompt_token * self.tokens(request))
        if self.fails and number % self.fails == 0:
            raise self.failure
        most = request.max_tokens or 1
        yield Delta("one ")
        for begin in range(1, most, self.in_a_piece):
            made = min(self.in_a_piece, most - begin)
            await asyncio.sleep(self.a_token * made)
            yield Delta("more " * made)
        yield Delta("", "length", self.usage(request))


def measured(engine: Lawful, load: str, *levels: Level, target: dict[str, Any] | None = None,
             workload: Workload | None = None, **how: Any) -> Report:  # fmt: skip
    with virtual() as (_, loop):
        generator = Generator(engine, for_engine(engine, 10_000))
        found = Target(generator, **{"facts": {"model": "lawful"}, **(target or {})})
        return loop.run_until_complete(ameasure(found, workload or find(load), levels, **{"seed": 1, **how}))


@given(
    prompt=st.integers(60, 4000), made=st.integers(2, 200), piece=st.integers(1, 9), at_once=st.integers(1, 9)
)
@settings(max_examples=25, deadline=None)
def test_times_follow_the_law_whatever_a_piece_holds(
    prompt: int, made: int, piece: int, at_once: int
) -> None:
    engine = Lawful(in_a_piece=piece, tokens_a_word=1.3)
    (row,) = measured(engine, f"{prompt}:{made}:12", Level(at_once)).results
    read = row["input_tokens"]
    assert read == pytest.approx(prompt, abs=2)
    assert row["ttft_ms"]["mean"] == pytest.approx(200 + read, rel=1e-3)
    assert row["tpot_ms"]["mean"] == row["tpot_ms"]["p99"] == pytest.approx(50, rel=1e-3)
    assert (row["requests"], row["failed"], row["output_tokens"]) == (12, 0, made)
    each = 0.2 + read / 1000 + 0.05 * (made - 1)
    assert row["seconds"] == pytest.approx(each * math.ceil(12 / at_once), rel=1e-3)
    assert row["output_tokens_per_s"] == pytest.approx(12 * made / row["seconds"], rel=1e-3)
    assert row["in_flight"] == pytest.approx(12 / math.ceil(12 / at_once), rel=1e-3)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ("4:0:1", "4:0:1 has no output tokens"),
        ("99999999999:1:1", "more prompt"),
        ("9:1:999999999", "more prompt"),
    ],
)
def test_a_workload_that_cannot_be_asked_is_refused_before_anything_is(workload: str, said: str) -> None:
    engine = Lawful()
    with pytest.raises(InvalidInput, match=said):
        measured(engine, workload, Level(1))
    assert not engine.asked


def test_an_open_loop_sends_whatever_is_answered() -> None:
    levels = (Level(rate=2.0), Level(rate=math.inf))
    even, at_once = measured(Lawful(), "100:21:40", *levels, even=True).results
    assert even["seconds"] == pytest.approx(39 / 2 + 0.3 + 1.0, rel=1e-3)
    assert (even["concurrency"], even["rate"], at_once["rate"]) == (None, 2.0, "inf")
    assert at_once["in_flight"] == pytest.approx(40) and at_once["seconds"] == pytest.approx(1.3, rel=1e-3)


def test_moments_are_poisson_and_repeat_with_the_seed() -> None:
    rows = [measured(Lawful(), "50:2:400", Level(rate=10.0), seed=seed).results[0] for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]
    assert all(34 < row["seconds"] < 46 for row in rows)  # 40 s, four standard deviations of 0.5 s each


def test_no_two_prompts_begin_alike_unless_asked() -> None:
    engine = Lawful()
    measured(engine, "200:4:30", Level(1), Level(5), seed=None)
    heads = Counter(" ".join(str(one.prompt).split()[:8]) for one in engine.asked)
    assert set(heads.values()) == {1}


def test_a_shared_prefix_is_shared_by_so_many() -> None:
    engine = Lawful()
    shared = Workload("talk", 12, input_tokens=20, output_tokens=4, prefix_tokens=300, shared=4)
    (row,) = measured(engine, "", Level(2), workload=shared).results
    asked = [str(one.prompt) for one in engine.asked[-12:]]
    assert [len({text[:600] for text in asked[at : at + 4]}) for at in (0, 4, 8)] == [1, 1, 1]
    assert len({text[:600] for text in asked}) == 3 and len(set(asked)) == 12
    assert row["input_tokens"] == pytest.approx(320, abs=2)


def test_failures_are_counted_with_their_reason() -> None:
    report = measured(Lawful(fails=5), "50:4:40", Level(3))
    (row,) = report.results
    assert row["failed"] == 8 and row["errors"] == {"out of memory": 8} and report.fits
    assert "8 failed: out of memory" in str(report)


def test_what_fails_at_once_is_an_error_and_no_measurement() -> None:
    with pytest.raises(MemserveError, match="out of memory"):
        measured(Lawful(fails=1), "50:4:4", Level(1))


def test_a_load_beyond_the_context_is_told_with_the_option_that_bench_has() -> None:
    with pytest.raises(ContextOverflow, match="--workload") as caught:
        measured(Lawful(fails=1, failure=ContextOverflow(tokens=4033, limit=2048)), "4000:4:1", Level(1))
    assert "truncate" not in str(caught.value)


def test_goodput_counts_what_meets_the_targets() -> None:
    def per_s(**targets: float) -> tuple[Any, Any]:
        (row,) = measured(Lawful(), "100:11:8", Level(2), **targets).results
        return row["goodput_per_s"], row["requests_per_s"]

    met, every = per_s(ttft=301.0, tpot=50.1)
    assert met == every
    assert per_s(ttft=250.0)[0] == per_s(tpot=49.0)[0] == 0
    assert per_s()[0] is None
    shown = [str(measured(Lawful(), "100:3:4", Level(1), ttft=ttft)) for ttft in (1e6, None)]
    assert ["goodput/s" in one for one in shown] == [True, False]


def test_without_streams_there_is_throughput_and_no_first_token() -> None:
    (row,) = measured(Lawful(stream=False), "100:11:8", Level(2), ttft=1e6, tpot=1e6).results
    assert row["ttft_ms"] is row["tpot_ms"] is row["goodput_per_s"] is None
    assert row["output_tokens_per_s"] > 0


def test_tokens_that_nobody_counts_are_not_guessed() -> None:
    with pytest.raises(MemserveError, match="--tokenizer FOLDER"):
        measured(Lawful(counts=False), "100:11:8", Level(2))


def test_a_tokenizer_counts_where_the_server_does_not(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="needs pip install memserve[conformance]")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"more": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    beside = {"facts": {"checkpoint": str(tmp_path / "model.gguf")}}
    for how in ({"tokenizer": str(tmp_path)}, {"target": beside}):
        (row,) = measured(Lawful(counts=False), "100:11:8", Level(2), **how).results
        assert row["output_tokens"] == 11 and row["tpot_ms"]["mean"] == pytest.approx(50, rel=1e-3)
        assert row["input_tokens"] == pytest.approx(100, abs=2), "so that --calibrate can learn from it"


def test_the_prediction_is_for_what_was_really_asked() -> None:
    seen = []

    def forecast(workload: Workload, concurrency: float | None) -> Speed:
        seen.append((workload.input_tokens, workload.output_tokens, concurrency))
        return Speed(*[Range(1.0, 2.0, 3.0)] * 3)

    report = measured(Lawful(), "100:11:8", Level(2), Level(rate=math.inf), target={"forecast": forecast})
    assert [asked[1:] for asked in seen] == [(11, 2), (11, pytest.approx(8))]
    assert all(asked[0] == pytest.approx(100, abs=2) for asked in seen)
    assert report.results[0]["predicted"]["tpot_ms"] == {"low": 1.0, "likely": 2.0, "high": 3.0}
    jsonschema.validate(report.to_dict(), SCHEMA)
    assert "(1 to 3)" in str(report)


def test_prompts_of_a_file_are_asked_as_they_stand(tmp_path: Path) -> None:
    lines = [{"prompt": f"question {number}", "max_tokens": 3} for number in range(4)]
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = Prompts(find(str(file)), 1, str(file)).draw(6)
    assert [one.prompt for one in drawn] == [f"question {number % 4}" for number in range(6)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say one: PLAN.json"),
        (("plan.json", "--model", "m"), "say one: PLAN.json"),
        (("--model", "m", "--concurrency", "1", "--rate", "2"), "say one"),
        (("--model", "m", "--concurrency", "1,x"), "from 1 to 1,000,000,000 is needed"),
        (("--model", "m", "--workload", "12"), "unknown workload"),
        (("--modle", "m"), "did you mean --model?"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--quiet"]) == 1
    assert "refused" in capsys.readouterr().err


def test_a_real_server_on_loopback(counting_server: Any, capsys: pytest.CaptureFixture[str],
                                   tmp_path: Path) -> None:  # fmt: skip
    words = ["--base-url", counting_server.base_url, "--model", MODEL, "--backend", "vllm", "--gpus", "1xL4"]
    file = tmp_path / "bench.json"
    code = main(["bench", *words, "--workload", "90:12:9", "--concurrency", "1,3", "--json", "-o", str(file)])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found == json.loads(file.read_text())
    jsonschema.validate(found, SCHEMA)
    assert [row["concurrency"] for row in found["results"]] == [1, 3]
    assert all((row["failed"], row["output_tokens"]) == (0, 12) for row in found["results"])
    assert all(row["input_tokens"] == pytest.approx(90, abs=2) for row in found["results"])
    assert all(row["predicted"]["ttft_ms"]["likely"] > 0 for row in found["results"])
    assert found["memory"]["process_gib"] > 0  # whoever listens on that port of this machine
    assert counting_server.most == 3 and all(body["ignore_eos"] for body in counting_server.bodies)


@pytest.mark.parametrize("model", [None, "smollm2", "other"])
def test_a_backends_own_model_is_told_by_what_really_runs(
    model: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what nobody predicts is no column."""
    toy = type(registry.find("toy"))
    opening = toy.open
    monkeypatch.setattr(toy, "own_names", ("smollm2",), raising=False)
    monkeypatch.setattr(toy, "open", lambda self, model=None, **options: opening(self, None, **options))
    words = ["bench", "--backend", "toy", *(["--model", model] if model else []), "--workload", "20:4:2"]
    assert main([*words, "--quiet", "-o", str(tmp_path / "bench.json")]) == 0
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "bench.json").read_text())["target"]["model"]
    assert told == ("other" if model == "other" else "toy") and out.startswith(f"{told}:")
    assert "TTFT ms" in out and "(predicted)" not in out


def test_gaps_are_those_between_pieces() -> None:
    (row,) = measured(Lawful(in_a_piece=4), "60:9:3", Level(1)).results
    assert row["gap_ms"]["mean"] == pytest.approx(200, rel=1e-3)
    assert all(a <= b for a, b in pairwise(row["gap_ms"][name] for name in ("p50", "p90", "p99")))


def test_a_server_that_says_who_it_is_needs_no_backend(
    counting_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    counting_server.models = [{"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 4096}]
    words = ["--base-url", counting_server.base_url, "--model", MODEL, "--workload", "90:12:3"]
    assert main(["bench", *words, "--gpus", "1xL4", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"]["backend"] == "vllm" and found["results"][0]["predicted"]


def test_a_backend_of_this_process_may_stand_behind_an_address(
    counting_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--base-url", counting_server.base_url, "--model", MODEL, "--workload", "90:12:3"]
    assert main(["bench", *words, "--backend", "embedded", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["failed"] == 0


def test_a_plan_that_runs_already_is_measured_at_its_address(
    counting_server: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing is started, and what is predicted is the plan's."""
    file = tmp_path / "plan.json"
    assert main(["plan", MODEL, "--gpus", "1xL4", "--backend", "vllm", "--json"]) == 0
    file.write_text(capsys.readouterr().out)
    words = ["bench", str(file), "--base-url", counting_server.base_url, "--workload", "90:12:3", "--quiet"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, SCHEMA)
    assert (found["target"]["model"], found["target"]["gpus"]) == (MODEL, "1xL4")
    assert found["target"]["base_url"] == counting_server.base_url and found["results"][0]["predicted"]
    assert {body["model"] for body in counting_server.bodies} == {MODEL}


@pytest.mark.parametrize("words", [
    "plan.json --gpus 1xL4", "plan.json --tp 2", "plan.json --backend vllm", "--backend toy --even",
    "plan.json --base-url http://127.0.0.1:9/v1 --python python3", "--backend toy --allow env",
])  # fmt: skip
def test_an_option_that_nothing_heeds_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words.split()]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_what_is_not_told_is_no_figure() -> None:
    once = Asked(0.0, 2.0, (2.0,), Usage(None, 40), "all at once")
    found = report.row([once, once])
    assert found["tpot_ms"] is None and found["ttft_ms"]["mean"] == 2000
    assert found["input_tokens"] is None and found["cached_tokens"] is None and found["output_tokens"] == 40


def test_failures_of_all_levels_are_added() -> None:
    failed = report.row([Asked(0.0, 1.0, error=RemoteError("down"))] * 2)
    rows = tuple({"concurrency": n, "rate": None, **failed, "predicted": None} for n in (1, 8))
    load = {"input_tokens": 1, "output_tokens": 1, "requests": 2}
    shown = str(report.Report({"model": "m"}, load, rows, {}))
    assert "4 failed: down" in shown
