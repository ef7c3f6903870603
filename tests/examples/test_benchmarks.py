"""The two benchmark examples, offline: the published formats, the measures, and whole runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from memserve.errors import RunError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.{name}")


@pytest.fixture
def call(example, capsys):
    """A whole run in this process; what it printed."""

    def run(name, out, *words):
        example(f"{name}.__main__").main(["--out", str(out), *words])
        return capsys.readouterr().out

    return run


def report(out):
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def means(out, table):
    return {name: row["mean"] for name, row in report(out)["measures"][table].items()}


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def nltk():
    return pytest.importorskip("nltk", reason="LoCoMo's F1 needs a stemmer: pip install nltk")


@pytest.mark.parametrize(
    "words",
    [
        ("--retriever", "none", "--user-only"),
        ("--granularity", "turn", "--reading", "con-separate", "--history", "nl"),
        ("--retriever", "embedder", "--reading", "con"),
    ],
    ids=lambda words: words[1],
)
def test_longmemeval_end_to_end(tmp_path, words, call):
    call("longmemeval", tmp_path, *words, "--costs", *(["1xL4"] if "none" in words else []))
    told = means(tmp_path, "answers")
    assert told["accuracy"] >= 0.5
    assert told["abstention"] == 0.0, "the scripted server never says that it does not know"
    found = means(tmp_path, "retrieval")
    assert bool(found) == (words[1] != "none")
    assert found.get("session recall_any@5", 1.0) >= 0.9
    if words[1] == "turn":
        assert found["turn recall_any@5"] <= found["turn recall_any@50"]
        assert len(rows(tmp_path / "notes.jsonl")) > 30
    published = rows(tmp_path / "hypotheses.jsonl")
    assert set(published[0]) == {"question_id", "hypothesis"}
    assert len(published) == 30
    assert len(report(tmp_path)["costs"]) == (3 if "none" in words else 0)
    assert "<table>" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--unit", "dialog"), ("--unit", "observation", "--retriever", "embedder"),
                                   ("--unit", "summary", "--judge")], ids=lambda words: words[1])  # fmt: skip
def test_locomo_end_to_end(tmp_path, words, nltk, call):
    call("locomo", tmp_path, *words, "--costs")
    told = means(tmp_path, "top 5")
    assert 0.0 < told["F1 single-hop"] < 1.0
    assert told["recall"] >= 0.2
    assert len(rows(tmp_path / "predictions.jsonl")) == 75
    assert ("judge" in told) == ("--judge" in words)


@pytest.mark.slow
def test_a_sweep_has_a_table_a_size(tmp_path, nltk, call):
    call("locomo", tmp_path, "--top", "1", "5", "--costs")
    tables = report(tmp_path)["measures"]
    assert list(tables) == ["top 1", "top 5"]
    assert tables["top 1"]["recall"]["mean"] < tables["top 5"]["recall"]["mean"]
    whole = tmp_path / "whole"
    call("locomo", whole, "--retriever", "none", "--context-tokens", "0", "60", "--costs")
    asked = [
        rows(whole / f"answers-context-{size}.jsonl")[0]["usage"]["prompt_tokens"] for size in ("all", "60")
    ]
    assert asked[0] > 2 * asked[1]


def test_a_second_call_asks_nothing_and_another_prompt_is_not_mixed_in(tmp_path, nltk, call):
    call("locomo", tmp_path, "--top", "5", "--judge", "--costs")
    again = call("locomo", tmp_path, "--top", "5", "--judge", "--costs")
    assert again.count("75 answered before") == 2
    with pytest.raises(RunError, match="without an answer: 75 of 75, which count as wrong"):
        call("locomo", tmp_path, "--top", "4", "--costs")
    assert report(tmp_path)["facts"]["answers without an answer"].startswith("75 of 75")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["locomo", "longmemeval"])
@pytest.mark.parametrize("text", ["{", "<html>", "[]", "[1]", '{"question_id": 1}', None])
def test_data_of_another_form_is_one_line(tmp_path, name, text):
    if text is not None:
        (tmp_path / "data.json").write_text(text)
    words = [
        sys.executable,
        "-m",
        f"examples.{name}",
        "--data",
        str(tmp_path / "data.json"),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done.stderr


def test_longmemeval_reads_its_published_format(example, tmp_path):
    row = {
        "question_id": "gpt4_1_abs", "question_type": "multi-session", "question": "How many?", "answer": 3,
        "question_date": "2023/05/30 (Tue) 23:40", "haystack_session_ids": ["b", "a"],
        "haystack_dates": ["2023/05/21 (Sun) 02:57", "2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [[], [{"role": "user", "content": "hi", "has_answer": True}]],
        "answer_session_ids": ["a"],
    }  # fmt: skip
    files = {"longmemeval_s": json.dumps([row]), "log.jsonl": json.dumps(row) + "\n" + json.dumps(row) + "\n"}
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        one = example("longmemeval.data").load(path)[-1]
        assert (one.answer, one.unanswerable, one.evidence) == ("3", True, ["a"])
    reading = example("longmemeval.reading")
    text = reading.history(reading.whole(one, "session", 10, user_only=False), "json", "[{} {}]{}")
    assert text.index("2023/05/20") < text.index("2023/05/21")
    assert "has_answer" not in text


def test_longmemeval_indexes_what_the_user_said(example):
    data, index = example("longmemeval.data"), example("longmemeval.index")
    one = data._read(data.synthetic(1, sessions=4)[0])
    sessions = index.documents(one, "session")
    turns = index.documents(one, "turn")
    assert [document.id for document in sessions] == list(one.session_ids)
    assert all("Wonderful!" not in document.text for document in (*sessions, *turns))
    held = [document for document in turns if "answer" in document.id]
    assert [one.sessions[document.place][document.turn]["has_answer"] for document in held] == [True]
    assert sum("noans" in document.id for document in turns) == 2


@pytest.mark.parametrize(
    ("join", "texts"),
    [
        ("separate", ["a b", "c", "k; l", "m"]), ("split-separate", ["a b", "c", "k", "l", "m"]),
        ("merge", ["k; l a b", "m c"]), ("split-replace", ["k", "l", "m"]),
    ],
)  # fmt: skip
def test_longmemeval_expands_keys(example, join, texts):
    data, index = example("longmemeval.data"), example("longmemeval.index")
    said = [[{"role": "user", "content": text}] for text in ("a b", "c")]
    one = data.Instance("q", "multi-session", "?", "!", "today", ["s1", "s2"], ["1", "2"], said, [])
    expansion = index.Expansion("session-keyphrase", join, {"s1": "k; l", "s2": "m"})
    assert [document.text for document in index.documents(one, "session", expansion)] == texts


def test_longmemeval_measures(example):
    """Worked out by hand; benchmarks/originals.py compares with the benchmark's own functions."""
    measures = example("longmemeval.measures")
    names = ["s1", "answer_a", "s2", "answer_b"]
    assert measures.measured([1, 0, 2, 3], names, 1) == (1.0, 0.0, 1.0)
    assert measures.measured([0, 1, 2, 3], names, 3) == (1.0, 0.0, pytest.approx(0.5))
    turns = ["s1_1", "s1_3", "answer_a_1", "noans_a_3"]
    assert measures.by_session([0, 1, 2, 3], turns, 2)[:2] == (1.0, 1.0)
    assert measures.measured([0, 1, 2, 3], turns, 2)[:2] == (0.0, 0.0)


TURN = {"speaker": "A", "dia_id": "D10:1", "text": "Look!", "img_url": ["x"], "blip_caption": "a red boat"}
TALK = {
    "speaker_a": "A", "speaker_b": "B", "session_2_date_time": "2 May", "session_2": [],
    "session_10_date_time": "3 May", "session_10": [TURN], "session_11_date_time": "no session follows",
}  # fmt: skip
ASKED = [
    {"question": "Q1", "answer": 2022, "evidence": ["D10:1"], "category": 2},
    {"question": "Q2", "adversarial_answer": "red", "category": 5},
    {"question": "Q3", "answer": "likely; because", "category": 3},
]
MADE = {"session_10_observation": {"A": [["A has a boat.", "D10:1, D10:2"]]}, "session_10_summary": "A boat."}
NEWER = {
    "sample_id": "conv-1", "conversation": TALK, "qa": ASKED, "event_summary": {},
    "observation": {"session_10_observation": MADE["session_10_observation"]},
    "session_summary": {"session_10_summary": "A boat."},
}  # fmt: skip
OLDER = {**TALK, **MADE, "qa": ASKED}


@pytest.mark.parametrize("layout", ["list", "object", "folder", "zip"])
def test_locomo_reads_each_published_layout(example, tmp_path, layout):
    path = tmp_path / ("locomo10.zip" if layout == "zip" else "locomo10.json")
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("data/41.json", json.dumps(OLDER))
            packed.writestr("__MACOSX/data/41.json", "not JSON")
    else:
        path.write_text(json.dumps([NEWER] if layout == "list" else OLDER), encoding="utf-8")
    (talk,) = example("locomo.data").load(tmp_path if layout == "folder" else path)
    assert talk.id == {"list": "conv-1", "zip": "41"}.get(layout, "locomo10")
    assert [turn.text for turn in talk.turns] == ["Look! [shares a picture: a red boat]"]
    assert [question.answer for question in talk.questions] == ["2022", "no information available", "likely"]
    pieces = example("locomo.reading").pieces
    assert pieces(talk, "observation")[0].names == ("D10:1", "D10:2")
    assert pieces(talk, "summary") == [("A boat.", "3 May", ("S10",))]
    with pytest.raises(SystemExit, match="no conversation of LoCoMo"):
        (tmp_path / "other.json").write_text("{}")
        example("locomo.data").load(tmp_path / "other.json")


def test_locomo_scores(example, nltk):
    points, question = example("locomo.score").points, example("locomo.data").Question
    assert points(question("1", "q", "a kayak, the loom", 1, ()), "loom, Kayak!") == 1.0
    assert points(question("1", "q", "7 May", 2, ()), "on 7 May 2023") == pytest.approx(2 / 3)
    assert points(question("1", "q", "", 5, ()), "Not mentioned in the text.") == 1.0
    assert points(question("1", "q", "x", 4, ()), "") == 0.0
    assert points(question("1", "q", "paintings", 4, ()), "painted") == 1.0, "by their stems"
    recall = example("locomo.score").recall
    asked = question("1", "q", "x", 4, ("D1:2", "D3:4"))
    assert (recall(asked, ["D1:2"]), recall(asked, ["S3", "S1"]), recall(asked, [])) == (0.5, 1.0, 0.0)


def test_locomo_asks_its_fifth_category_as_a_choice(example):
    prompts, question = example("locomo.prompts"), example("locomo.data").Question
    asked = [question(f"q{n}", "Why?", "no information available", 5, (), "a boat") for n in range(20)]
    orders = {prompts.choices(one) for one in asked}
    assert len(orders) == 2, "the order changes with the question"
    first, second = prompts.choices(asked[0])
    assert f"(a) {first} (b) {second}" in prompts.Prompts().question(asked[0])
    assert [prompts.chosen(asked[0], said) for said in ("a", "(B)", "A boat!")] == [first, second, "a boat!"]
    temporal = question("q", "When?", "May", 2, ())
    assert "date" in prompts.Prompts().question(temporal)


CHECKOUTS = {
    "src/evaluation/evaluate_qa.py": "def check(task):\n"
    + "".join(f"    template = 'judge {n} {{}} {{}} {{}}'\n" for n in range(5)),
    "src/generation/run_generation.py": "def prepare():\n    answer_prompt_template = '{}'\n"
    "    answer_prompt_template = 'steps {} {} {}'\n    answer_prompt_template = 'short {} {} {}'\n"
    "    con_prompt = 'note {} {} {} {}'\n"
    "    text = '### Session {}: {} Session Content {}'.format(1, 2, 3)\n",
    "task_eval/evaluate_gpts.py": "QA_PROMPT = 'ask {}'\nQA_PROMPT_CAT_5 = 'choose {}'\n"
    "CONV_START_PROMPT = 'talk of {} and {}'\nHINT = ' Use DATE of CONVERSATION'\nONE = '(a) {} (b) {}'\n",
}


@pytest.fixture
def checkout(tmp_path):
    """A repository in the shape of both benchmarks', with words of our own; running it would fail."""
    for name, text in CHECKOUTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "raise SystemExit('this is not to be run')\n", encoding="utf-8")
    for words in (["init", "-q"], ["add", "-A"],
                  ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x"]):  # fmt: skip
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, timeout=60)
    return tmp_path


def test_prompts_come_from_a_checkout_and_its_commit_is_named(example, checkout):
    found = example("longmemeval.prompts").of(checkout)
    assert (found.steps, found.direct, found.note) == ("steps {} {} {}", "short {} {} {}", "note {} {} {} {}")
    data = example("longmemeval.data")
    one = data.Instance("q_abs", "multi-session", "Q", "A", "", [], [], [], [])
    assert found.verdict(one, "T") == "judge 4 Q A T"
    assert len(found.source.split()[-1]) == 40
    asked = example("locomo.prompts").of(checkout)
    assert (asked.start, asked.ask, asked.ask_choice) == ("talk of {} and {}", "ask {}", "choose {}")
    assert asked.date == " Use DATE of CONVERSATION"
    (checkout / "task_eval/evaluate_gpts.py").write_text("QA_PROMPT = 'no place to fill'\n")
    with pytest.raises(SystemExit, match="CONV_START_PROMPT"):
        example("locomo.prompts").of(checkout)


def test_the_report_has_intervals_and_three_sizes_in_both_currencies(example):
    found = example("common.report")
    low, high = found.Measure("x", [0.0, 1.0] * 50).interval
    assert 0.35 < low < 0.5 < high < 0.65
    assert found.Measure("x", [1.0] * 9).interval == (1.0, 1.0)
    sheet = found.costs("llama-8b", ["1xL4", "openai:gpt-4o-mini"], (1000, 100, 500), 7.0)
    assert [row["size"] for row in sheet] == ["a single study", "weekly evaluation", "all the time"] * 2
    for row in sheet:
        assert row["CNY a month"] == pytest.approx(7 * row["$ a month"])
        assert row["$ a month"] == pytest.approx(row["$ a run"] * row["runs a month"])
    [row] = found.costs("llama-405b", ["1xL4"], (1000, 100, 500), 7.0)
    assert ("weights exceed" in row["what"], row["$ a month"]) == (True, None)


def test_bm25_prefers_rare_words_and_short_documents(example):
    retrieval = example("common.retrieval")
    rank = retrieval.Bm25(retrieval.words).rank
    documents = ["the cat sat", "the dog sat on the mat with the kayak", "a kayak", "the the the", "tea"]
    assert rank("kayak", documents)[:2] == [2, 1]
    assert rank("Kayak?", documents)[:2] == [2, 1]
    assert rank("nothing shared", []) == []
