"""A job of several stages: what goes on, gold apart, resumed, told before; with a stand-in that counts."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memserve.errors import InvalidInput
from memserve.protocol import Completion, Usage
from memserve.run import quote, stages
from memserve.run.__main__ import main
from memserve.speed import prices

EXAMPLE = Path(__file__).parents[2] / "examples" / "raiden" / "job.toml"
JOB = {
    "seeds": "seeds.jsonl", "gold": 0.25, "rounds": 2,
    "stage": [
        {"name": "write", "prompt": "write about {text}", "n": 2, "seed": 7},
        {"name": "form", "drop": "bad", "distinct": True},
        {"name": "judge", "prompt": "is it good? {text}", "judges": True, "keep": "^yes"},
    ],
}  # fmt: skip
toml = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="tomllib came with Python 3.11; .json does the same"
)


def written(folder, job=JOB, seeds=8):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job))
    rows = [{"id": f"s{number}", "text": f"thing {number}"} for number in range(seeds)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "job.json"


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pipeline(folder, asked, fakes, job=JOB, **more):
    """The job over a generator of each stage."""
    made = stages.read(written(folder, job, **more))
    opened = {stage.name: fakes(asked, stage) for stage in made.stages}
    return stages.Pipeline(
        made, folder / "out", lambda stage: nullcontext(opened[stage.name]), lambda line: None
    )


@pytest.fixture
def fakes(fake):
    """A generator whose answers the test says, and which writes down what it was asked."""

    number = count()

    def make(asked, stage):
        class One(fake):
            async def agenerate(self, prompt, **settings):
                asked.append((stage.name, str(getattr(prompt, "prompt", prompt))))
                return await super().agenerate(prompt, **settings)

            def answer(self, prompt):
                asked_for = str(getattr(prompt, "prompt", prompt))
                text = f"a tale of [{asked_for.removeprefix('write about ')}] {next(number)}"
                if stage.judges:
                    text = "no" if "thing 3" in asked_for else "yes"
                return Completion(text=text, finish_reason="stop", usage=Usage(10, 5))

        return One()

    return make


def test_lines_go_through_and_gold_stays_apart(tmp_path, fakes):
    asked = []
    job = pipeline(tmp_path, asked, fakes)
    made = job.execute()
    data, gold = rows(tmp_path / "out" / "data.jsonl"), rows(tmp_path / "out" / "gold.jsonl")
    assert made == len(data) > 0 and job.failed == 0 and job.stopped is None
    assert 0 < len(gold) < 8 and {row["id"] for row in gold}.isdisjoint(
        row["id"].split("/")[0] for row in data
    )
    assert not any(row["text"] in prompt for row in gold for _, prompt in asked)
    assert all(row["judge"] == "yes" and row["text"].startswith("a tale") for row in data), "the text stays"
    assert not any("thing 3" in row["text"] for row in data)
    first = [row for row in data if row["id"].count("/") == 1]
    assert len(data) == 3 * len(first), "two answers of each that the first round kept"


def test_the_same_call_again_asks_nothing(tmp_path, fakes):
    asked = []
    pipeline(tmp_path, asked, fakes).execute()
    before, data = len(asked), (tmp_path / "out" / "data.jsonl").read_bytes()
    assert pipeline(tmp_path, asked, fakes).execute() > 0
    assert len(asked) == before and (tmp_path / "out" / "data.jsonl").read_bytes() == data


def test_a_stage_that_was_stopped_is_gone_on_with(tmp_path, fakes):
    """What its journal holds is not asked again: all but the last three answers; nothing came after it."""
    asked = []
    pipeline(tmp_path, asked, fakes).execute()
    journal = tmp_path / "out" / "round-1" / "write.jsonl"
    lines, whole = journal.read_bytes().splitlines(keepends=True), len(asked)
    journal.write_bytes(b"".join(lines[:-3]))
    for later in (journal.with_name("judge.jsonl"), *(tmp_path / "out" / "round-2").iterdir()):
        later.unlink()
    again = []
    assert pipeline(tmp_path, again, fakes).execute() > 0
    assert [name for name, _ in again].index("judge") == 3, "the three that were missing, then the next stage"
    assert len(again) == whole - (len(lines) - 3)


def test_a_changed_prompt_is_refused_and_nothing_is_asked(tmp_path, fakes):
    asked = []
    pipeline(tmp_path, asked, fakes).execute()
    other = {**JOB, "stage": [{**JOB["stage"][0], "prompt": "sing of {text}"}, *JOB["stage"][1:]]}
    again = []
    with pytest.raises(InvalidInput, match="another prompt"):
        pipeline(tmp_path, again, fakes, job=other).execute()
    assert not again


@pytest.mark.parametrize("text", [None, ""])
def test_an_answer_without_text_is_asked_about_no_further(tmp_path, fakes, text):
    """As where a filter refused it."""
    asked, job = (
        [],
        {**JOB, "gold": 0.0, "rounds": 1, "stage": [JOB["stage"][0], {"name": "on", "prompt": "{text}"}]},
    )
    made = pipeline(tmp_path, asked, fakes, job=job, seeds=1)
    writer = made._opener(made.plan.stages[0]).enter_result
    writer.script = {"*": [Completion(text=text, finish_reason="content_filter")]}
    writer.answer = lambda prompt: (writer.script["*"] or [Completion("a", finish_reason="stop")]).pop()
    assert (made.execute(), [name for name, _ in asked]) == (1, ["write", "write", "on"])


@pytest.mark.parametrize(
    ("field", "said"), [(None, None), ({"a": ["é", True]}, '{"a": ["é", true]}'), (5, "5")]
)
def test_a_field_is_written_as_json_and_one_without_a_value_is_not_there(tmp_path, fakes, field, said):
    asked, job = [], {**JOB, "gold": 0.0, "rounds": 1, "stage": [{"name": "a", "prompt": "{topic}"}]}
    made = pipeline(tmp_path, asked, fakes, job=job, seeds=1)
    made.seeds = [{"id": "s", "topic": field}]
    if said is None:
        with pytest.raises(InvalidInput, match=r"topic.* is not in line s"):
            made.execute()
    else:
        made.execute()
    assert [prompt for _, prompt in asked] == [said] * (said is not None)


@pytest.mark.parametrize("name", ["data.jsonl", "gold.jsonl"])
def test_a_file_that_no_job_wrote_or_this_one_reads_stays(tmp_path, fakes, name):
    (folder := tmp_path / "out").mkdir()
    (folder / name).write_text("mine")
    asked = []
    with pytest.raises(InvalidInput, match="no job wrote it"):
        pipeline(tmp_path, asked, fakes).execute()
    (folder / "round-1").mkdir()
    (folder / name).write_text('{"id": "s", "text": "t"}\n')
    made = pipeline(tmp_path, asked, fakes)
    made.plan = replace(made.plan, seeds=folder / name)
    with pytest.raises(InvalidInput, match="this job reads it"):
        made.execute()
    assert not asked


def test_no_seeds_are_no_job(tmp_path, fakes):
    with pytest.raises(InvalidInput, match="holds no line"):
        pipeline(tmp_path, [], fakes, seeds=0)


def test_a_stage_that_lets_nothing_through_ends_the_job(tmp_path, fakes):
    asked, stage = [], {"name": "none", "keep": "^never$"}
    job = pipeline(tmp_path, asked, fakes, job={**JOB, "stage": [JOB["stage"][0], stage, JOB["stage"][2]]})
    assert job.execute() == 0 and {name for name, _ in asked} == {"write"}
    assert not rows(tmp_path / "out" / "data.jsonl")


@given(share=st.floats(0, 0.9), extra=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_who_is_gold_does_not_depend_on_the_others(share, extra):
    few = [{"id": f"s{number}", "text": f"t{number}"} for number in range(30)]
    many = few + [{"id": f"x{number}", "text": f"u{number}"} for number in range(extra)]
    gold, rest = stages._apart(few, share)
    assert [one for one in stages._apart(many, share)[0] if one in few] == gold
    assert len(gold) + len(rest) == 30


def test_a_file_of_gold_takes_its_lines_out_of_the_seeds(tmp_path):
    (tmp_path / "gold.jsonl").write_text('{"id": "g", "text": "Thing  2"}\n')
    made = stages.read(written(tmp_path, {**JOB, "gold": "gold.jsonl"}))
    job = stages.Pipeline(made, tmp_path / "out", lambda stage: nullcontext(None), lambda line: None)
    assert [row["id"] for row in job.gold] == ["g"] and "s2" not in {row["id"] for row in job.seeds}


def test_a_text_may_hold_any_sign_but_no_broken_utf8(tmp_path):
    job = written(tmp_path)
    line = {"id": "a", "text": "one\u2028two\x85three"}
    (tmp_path / "seeds.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert list(stages._lines(stages.read(job).seeds)) == [line]
    (tmp_path / "seeds.jsonl").write_bytes(b'"\xff"\n')
    assert main([str(job), "-o", str(tmp_path / "out")]) == 2


BROKEN = [
    ({"stages": []}, "did you mean stage"), ({"rounds": 0}, "rounds"), ({"gold": 1}, "gold"),
    ({"seeds": 3}, "seeds"), ({"stage": []}, "at least one"),
    ({"stage": [{"name": "a"}, {"name": "a"}]}, "two stages"),
    *(({"stage": [{"name": "a", **row}]}, says) for row, says in (
        ({"promt": "x"}, "did you mean prompt"), ({"name": "A B"}, "name"),
        ({"keep": "("}, "regular expression"), ({"n": 0}, "n is"), ({"judges": True}, "a judge needs"),
        ({"n": 2}, "nobody is asked"),
        *((row, f"stage 1: {next(iter(row))} ") for row in (
            {"rpm": -1}, {"rpm": math.inf}, {"tpm": "x"}, {"concurrency": True}, {"options": "abc"},
            {"options": [1]}, {"options": {"a": [math.nan]}}, {"distinct": "no"}, {"judges": 1},
            {"batch": "abc"}, {"batch": {"a": 1}}, {"batch": math.nan}, {"n": True}, {"model": 3},
            {"base_url": 3}, {"gpus": []}, {"max_tokens": "many"}, {"temperature": math.nan},
            {"budget": [1]}, {"patience": math.inf},
        )),
        *(({"price": price}, "stage 1: a price is IN:OUT") for price in (
            3, True, [1], [True, 1], ["1", 2], "0.15", "1:2:3", "nan:1", [1, math.inf], {"a": 1}, "-1:2",
        )),
        ({"backend": "nobody"}, "stage 1: unknown backend"),
        ({"prompt": "{nothing}"}, "{nothing} is not in line"),
    )),
]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_a_malformed_job_ends_with_2_and_one_line(tmp_path, capsys, change, says, more):
    job = written(tmp_path, {**JOB, **change})
    assert main([str(job), "-o", str(tmp_path / "out"), *more]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert says in said and not (tmp_path / "out").exists()


def test_a_field_is_looked_for_where_a_line_can_come(tmp_path):
    """A judge's verdict and an answer are fields of what follows; a seed that a filter drops is not asked."""
    listed = [
        {"name": "form", "drop": "thing 0"}, {"name": "write", "prompt": "{text} {more}"},
        {"name": "judge", "prompt": "{write}", "judges": True, "keep": "x"},
        {"name": "last", "prompt": "{judge} {write} {text}"},
    ]  # fmt: skip
    path = written(tmp_path, {**JOB, "gold": 0, "stage": listed})
    seeds = [{"id": f"s{n}", "text": f"thing {n}", **({"more": 1} if n else {})} for n in range(3)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    job = stages.Pipeline(stages.read(path), tmp_path / "out", lambda _: nullcontext(None), print)
    assert [line.split(" of ")[0] for line in quote.told(job)][2::2] == [
        "write: 2 requests",
        "last: 2 requests",
    ]


@given(
    texts=st.lists(st.text("abc \u00e9\u4e2d", min_size=1, max_size=300), min_size=1, max_size=8),
    n=st.integers(1, 4),
    most=st.integers(1, 400),
)
@settings(max_examples=40, deadline=None)
def test_what_is_foreseen_is_what_a_run_of_such_answers_asks(tmp_path_factory, texts, n, most):
    """The mean of the prompts that are sent, with the template, where each answer is as long as it may be."""
    folder = tmp_path_factory.mktemp("job")
    write = {"name": "write", "prompt": "say {text} as {id}", "n": n, "max_tokens": most}
    judge = {"name": "judge", "prompt": "is {text} like {write}?", "judges": True, "keep": "x"}
    path = written(folder, {"seeds": "seeds.jsonl", "stage": [write, judge]})
    (folder / "seeds.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    job = stages.Pipeline(stages.read(path), folder / "out", lambda _: nullcontext(None), print)
    answer = "x" * int(most * quote.CHARACTERS)
    lines, found = job.seeds, list(quote._foreseen(job))
    for stage, asked, read in found:
        sent = list(stages._requests(stage, lines))
        sizes = [len(request["prompt"]) / quote.CHARACTERS + quote.TEMPLATE for _, request in sent]
        assert asked == len(sent) and read == pytest.approx(sum(sizes) / len(sizes))
        lines = [stages._after(stage, line, {"id": r["id"], "text": answer}) for line, r in sent]
    assert not any("at most" in line for line in quote.told(job))


def test_an_option_of_a_plain_run_is_refused_beside_a_job(tmp_path, capsys):
    assert main([str(written(tmp_path)), "-o", str(tmp_path / "out"), "--max-tokens", "5"]) == 2
    assert "--max-tokens belongs into the job" in capsys.readouterr().err
    assert main(["requests.jsonl", "-o", str(tmp_path / "answers.jsonl"), "--dry-run"]) == 2


def test_the_break_even_is_told_before_anything_starts(tmp_path, capsys):
    stage = {"name": "write", "prompt": "{text}", "model": "llama-8b", "gpus": "1xL4@0.8", "max_tokens": 200,
             "instead": "openai:gpt-4o"}  # fmt: skip
    job = written(tmp_path, {**JOB, "stage": [stage]})
    assert main([str(job), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "requests an hour" in said and "the cards pay from" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [{"price": [3, 6]}, {"price": "3:6"}, {}, {"batch": True}])
def test_a_stage_is_quoted_at_the_price_of_its_run(tmp_path, given):
    stage = {"name": "write", "prompt": "{text}" * 200, "n": 2, "backend": "openai", "model": "gpt-4o-mini",
             "max_tokens": 1_000_000, **given}  # fmt: skip
    made = stages.read(written(tmp_path, {**JOB, "gold": 0, "stage": [stage]}, seeds=1))
    _, line, growth = quote.told(stages.Pipeline(made, tmp_path / "out", lambda _: nullcontext(None), print))
    price = prices.of("openai:gpt-4o-mini")
    output = 6 if "price" in given else price.batch_output if given else price.output
    assert float(line.rpartition("$")[2]) == pytest.approx(2 * output, rel=0.01)
    assert "2 times as many" in growth


@given(hourly=st.floats(0.1, 100), own=st.floats(1e-6, 1), factor=st.floats(1.01, 50))
def test_at_the_break_even_both_have_cost_the_same(hourly, own, factor):
    said = quote._break_even(hourly, own, own * factor)
    requests = float(said.split(" from ")[1].split(" ")[0].replace(",", ""))
    assert quote.START_HOURS * hourly + requests * own == pytest.approx(
        requests * own * factor, rel=1e-2, abs=own * factor
    )
    assert "never" in quote._break_even(hourly, own * factor, own)


@toml
@pytest.mark.engine("embedded")
def test_the_example_runs_on_the_embedded_default(tmp_path):
    for _ in range(2):  # the second call asks nothing
        assert main([str(EXAMPLE), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    data, gold = rows(tmp_path / "out" / "data.jsonl"), rows(tmp_path / "out" / "gold.jsonl")
    assert len(data) > len(gold) > 0 and all(row["judge"] for row in data)


@toml
def test_the_example_is_told_whole(tmp_path, capsys):
    assert main([str(EXAMPLE), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "seeds" in said and all(f"{name}:" in said for name in ("answer", "form", "judge"))
