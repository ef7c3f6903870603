"""Answers are replayed only where everything that decides them is the same."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from memserve.errors import InvalidInput
from memserve.protocol import Completion
from memserve.run import answers, run


@pytest.fixture
def ask(fake, tmp_path):
    """Ask through one cache file, each time for a new output; the generator tells what was really asked."""
    count = iter(range(100))

    def asked(requests, generator=None):
        generator = generator or fake()
        output = tmp_path / f"answers-{next(count)}.jsonl"
        asked.summary = run(requests, output, generator=generator, cache=tmp_path / "cache.sqlite")
        asked.output = output
        return len(generator.asked)

    return asked


def test_the_same_request_is_replayed_with_everything_but_its_cost(ask, rows):
    ask([{"id": 1, "prompt": "a"}])
    first = rows(ask.output)[0]
    assert ask([{"id": 2, "prompt": "a"}]) == 0
    second = rows(ask.output)[0]
    assert (ask.summary.cached, ask.summary.done, ask.summary.tokens) == (1, 0, 0)
    assert second["cached"] is True
    same = ("text", "finish_reason", "usage", "key")
    assert [first[name] for name in same] == [second[name] for name in same]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "A"},
        {"max_tokens": 9},
        {"stop": ["x"]},
        {"seed": 1},
        {"top_p": 0.5},
        {"extra": {"openai_user": "u"}},
    ],
)
def test_any_other_setting_is_another_request(ask, change):
    ask([{"prompt": "a"}])
    assert ask([{"prompt": "a", **change}]) == 1


@pytest.mark.parametrize(
    "identity",
    [{"model": "other"}, {"revision": "main"}, {"base_url": "http://elsewhere"}, {"backend": "other"}],
)
def test_another_model_revision_or_place_answers_for_itself(ask, fake, identity):
    ask(["a"])
    generator = fake()
    generator.identity = identity
    assert ask(["a"], generator) == 1


@pytest.mark.parametrize("finish", ["length", "content_filter", None])
def test_abnormal_finishes_are_never_kept(ask, fake, finish):
    ask(["a"], fake({"a": [Completion(text="cut", finish_reason=finish)]}))
    assert ask(["a"]) == 1


def test_an_answer_without_text_is_never_kept(ask, fake):
    ask(["a"], fake({"a": [Completion(text=None, finish_reason="stop")]}))
    assert ask(["a"]) == 1


def test_errors_are_never_kept(ask, fake):
    ask(["a"], fake({"a": [RuntimeError("x")]}))
    assert ask(["a"]) == 1


def test_samples_are_kept_only_with_a_seed(ask):
    ask([{"prompt": "a", "temperature": 0.7}])
    assert ask([{"prompt": "a", "temperature": 0.7}]) == 1
    ask([{"prompt": "a", "temperature": 0.7, "seed": 5}])
    assert ask([{"prompt": "a", "temperature": 0.7, "seed": 5}]) == 0


def test_a_generator_that_does_not_name_its_model_cannot_be_cached(ask, fake):
    generator = fake()
    generator.capabilities = replace(generator.capabilities, model=None)
    with pytest.raises(InvalidInput, match="which model"):
        ask(["a"], generator)


def test_two_runs_share_a_cache_at_once(ask, fake, tmp_path):
    def nested():
        yield "a"
        inner = fake()
        run(["b"], tmp_path / "inner.jsonl", generator=inner, cache=tmp_path / "cache.sqlite")
        yield "c"

    assert ask(nested()) == 2
    assert ask(["a", "b", "c"]) == 0


def _cells(path):
    with closing(sqlite3.connect(path)) as base:
        return base.execute("SELECT key, body FROM answers").fetchall()


ANSWER = b'{"text": "x", "finish_reason": "stop"}'


@pytest.mark.parametrize("body", [b"garbage", b"[1]", b"", None, 5, ANSWER, ANSWER + b'\n{"id": "y"}'])
def test_a_changed_row_counts_as_not_cached_and_is_told_once(ask, rows, tmp_path, caplog, body):
    ask(["a", "b"])
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as base:
        base.execute("UPDATE answers SET body = ?", (body,))
        base.commit()
    assert ask(["a", "b"]) == 2
    assert sorted(row["text"] for row in rows(ask.output)) == ["A", "B"]
    assert [record.message for record in caplog.records if "cache" in record.message] != []
    assert sum("cache" in record.message for record in caplog.records) == 1
    assert ask(["a", "b"]) == 0


def test_rows_of_two_requests_cannot_be_exchanged(ask, rows, tmp_path):
    ask(["a", "b"])
    (one, first), (other, second) = _cells(tmp_path / "cache.sqlite")
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as base:
        base.executemany("UPDATE answers SET body = ? WHERE key = ?", [(second, one), (first, other)])
        base.commit()
    ask(["a", "b"])
    assert sorted((row["text"], row["id"]) for row in rows(ask.output)) == sorted(
        (row["text"], row["id"]) for row in rows(tmp_path / "answers-0.jsonl")
    )


def test_flipped_bits_write_no_wrong_answer(fake, tmp_path):
    dice = random.Random(3)
    prompts = [f"prompt {n}" for n in range(30)]
    path = tmp_path / "cache.sqlite"
    run(prompts, tmp_path / "first.jsonl", generator=fake(), cache=path)
    whole = path.read_bytes()
    for trial in range(60):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 5, 40])):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        output = tmp_path / f"{trial}.jsonl"
        try:
            run([{"id": text, "prompt": text} for text in prompts], output, generator=fake(), cache=path)
        except InvalidInput as refused:
            assert "answer cache" in str(refused)
            continue
        assert {row["id"]: row["text"] for row in answers(output)} == {text: text.upper() for text in prompts}


def test_a_file_that_is_no_database_is_one_line(tmp_path, fake):
    path = tmp_path / "cache.sqlite"
    path.write_text("notes of mine " * 100)
    with pytest.raises(InvalidInput, match="cannot open the answer cache"):
        run(["a"], tmp_path / "out.jsonl", generator=fake(), cache=path)
    assert path.read_text().startswith("notes of mine")


@pytest.mark.parametrize(
    "table", ["experiments (id INT)", "answers (id INT, text TEXT)", "answers (key BLOB, body BLOB)"]
)
def test_somebody_elses_database_stays_as_it_is(tmp_path, fake, table):
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"CREATE TABLE {table}")
        base.commit()
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="no answer cache"):
        run(["a"], tmp_path / "out.jsonl", generator=fake(), cache=path)
    assert path.read_bytes() == before
