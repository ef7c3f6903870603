"""The two benchmark examples, offline: their published formats, their retrieval, and whole runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.{name}")


def call(name, out, *words):
    command = [sys.executable, "-m", f"examples.{name}", "--out", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def scores(told):
    return {
        line[:32].strip(): float(line[32:])
        for line in told.splitlines()
        if line[32:].strip()[:2] in ("0.", "1.")
    }


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("retriever", ["none", "bm25", "embedder"])
def test_longmemeval_end_to_end(tmp_path, retriever):
    told = scores(call("longmemeval", tmp_path, "--retriever", retriever))
    assert told["accuracy"] >= 0.6
    assert told["unanswerable"] == 0.0, "the scripted server never says that it does not know"
    assert told.get("recall of evidence sessions", 1.0) >= 0.9
    published = rows(tmp_path / "hypotheses.jsonl")
    assert set(published[0]) == {"question_id", "hypothesis"}
    assert len(published) == 30


@pytest.mark.parametrize("retriever", ["none", "bm25", "embedder"])
def test_locomo_end_to_end(tmp_path, retriever):
    told = scores(call("locomo", tmp_path, "--retriever", retriever))
    assert told["judge single-hop"] >= 0.7
    assert told["F1 adversarial"] == 0.0
    assert len(rows(tmp_path / "predictions.jsonl")) == 75


def test_a_second_call_asks_nothing_and_another_prompt_is_not_mixed_in(tmp_path):
    call("locomo", tmp_path, "--top", "5")
    again = call("locomo", tmp_path, "--top", "5")
    assert again.count("75 answered before") == 2
    assert "75 failed" in call("locomo", tmp_path, "--top", "4").splitlines()[0]


def test_longmemeval_reads_its_published_format(example, tmp_path):
    row = {
        "question_id": "gpt4_1_abs", "question_type": "multi-session", "question": "How many?", "answer": 3,
        "question_date": "2023/05/30 (Tue) 23:40", "haystack_session_ids": ["a", "b"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 02:57"],
        "haystack_sessions": [[{"role": "user", "content": "hi", "has_answer": True}], []],
        "answer_session_ids": ["a"],
    }  # fmt: skip
    path = tmp_path / "longmemeval_s.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    (one,) = example("longmemeval.data").load(path)
    assert (one.answer, one.unanswerable, one.evidence) == ("3", True, ["a"])
    text = example("longmemeval.__main__").prompt(one, [0, 1])
    assert text.index("2023/05/20") < text.index("2023/05/21") < text.index("How many?")


def test_locomo_reads_its_published_format(example, tmp_path):
    turn = {
        "speaker": "A",
        "dia_id": "D10:1",
        "text": "Look!",
        "img_url": ["x"],
        "blip_caption": "a red boat",
    }
    conversation = {
        "speaker_a": "A", "speaker_b": "B", "session_2_date_time": "2 May", "session_2": [],
        "session_10_date_time": "3 May", "session_10": [turn], "session_11_date_time": "no session follows",
    }  # fmt: skip
    asked = [
        {"question": "Q1", "answer": 2022, "evidence": ["D10:1"], "category": 2},
        {"question": "Q2", "adversarial_answer": "red", "category": 5},
        {"question": "Q3", "answer": "likely; because", "category": 3},
    ]
    path = tmp_path / "locomo10.json"
    row = {"sample_id": "conv-1", "conversation": conversation, "qa": asked, "event_summary": {}}
    path.write_text(json.dumps([row]), encoding="utf-8")
    (talk,) = example("locomo.data").load(path)
    assert [turn.line for turn in talk.turns] == ["[3 May] A: Look! [shares a picture: a red boat]"]
    assert [question.answer for question in talk.questions] == ["2022", "no information available", "likely"]


def test_locomo_scores(example):
    points, question = example("locomo.score").points, example("locomo.data").Question
    assert points(question("1", "q", "a kayak, the loom", 1, ()), "loom, Kayak!") == 1.0
    assert points(question("1", "q", "7 May", 2, ()), "on 7 May 2023") == pytest.approx(2 / 3)
    assert points(question("1", "q", "", 5, ()), "Not mentioned in the text.") == 1.0
    assert points(question("1", "q", "x", 4, ()), "") == 0.0


def test_bm25_prefers_rare_words_and_short_documents(example):
    rank = example("common.retrieval").Bm25().rank
    documents = ["the cat sat", "the dog sat on the mat with the kayak", "a kayak", "the the the"]
    assert rank("kayak", documents)[:2] == [2, 1]
    assert rank("the kayak", documents)[0] == 1
    assert rank("nothing shared", []) == []
