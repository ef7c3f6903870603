"""python -m memserve.run, as people and shell scripts meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import memserve
from memserve.run.__main__ import main
from memserve.run.progress import Progress
from memserve.run.store.results import Counts


@pytest.fixture
def requests(tmp_path):
    path = tmp_path / "requests.jsonl"
    rows = [json.dumps({"id": f"q{n}", "prompt": f"prompt {n}"}) for n in range(30)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def command(requests, out):
    def words(server, *more):
        which = ["--model", "m", "--backend", "openai", "--base-url", server.url, "--max-retries", "0"]
        return [sys.executable, "-m", "memserve.run", str(requests), "-o", str(out), *which, *more]

    return words


@pytest.fixture
def call():
    def start(words):
        environment = {**os.environ, "OPENAI_API_KEY": "sk-secret-of-the-test"}
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
        assert "sk-secret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr.strip()

    return start


def test_everything_answered_is_zero(serve, command, call, out, rows):
    server = serve()
    code, told = call(command(server, "--max-tokens", "7", "--concurrency", "4", "--cache", f"{out}.cache"))
    assert (code, len(rows(out))) == (0, 30), told
    assert told.startswith("30 answered, 0 failed, 450 tokens")
    code, told = call(command(server, "--max-tokens", "7"))
    assert (code, len(server.posts)) == (0, 30)
    assert "30 answered before" in told


@pytest.mark.slow
def test_some_failed_is_one(serve, command, call, requests, failed):
    requests.write_text('{"id": 1, "prompt": "a"}\n{"id": 2}\n', encoding="utf-8")
    code, told = call(command(serve()))
    assert code == 1
    assert "1 failed" in told
    assert failed()[0]["line"] == 2


@pytest.mark.slow
def test_a_refused_key_stops_at_once(serve, command, call, rows, out):
    server = serve()
    server.status = 401
    code, told = call(command(server))
    assert code == 1
    assert "AuthenticationFailed" in told or "401" in told
    assert len(server.posts) <= 4
    assert rows(out) == []


@pytest.mark.slow
def test_retry_failed(serve, command, call, out, rows, failed):
    server = serve()
    server.status = 400
    assert call(command(server))[0] == 1
    assert len(failed()) == 30
    server.status = 200
    assert call(command(server))[0] == 1
    assert len(server.posts) == 30, "what failed for good is not asked again unless it is asked for"
    assert call(command(server, "--retry-failed"))[0] == 0
    assert (len(rows(out)), failed()) == (30, [])


INFINITE = [f"{name} {word}" for name in ("--rpm", "--tpm", "--patience", "--timeout", "--temperature")
            for word in ("nan", "inf", "1e400")]  # fmt: skip
MALFORMED = [
    "--concurrency 0", "--concurrency x", "--nonsense", "--options x", "--options seed=NaN",
    "--options a=[1e400]", "--budget lots", f"--budget {'9' * 400}usd", "--price 3", "--price=-1:2",
    "--price nan:inf", "--price 1:1e400", "--price 1:2:3", *INFINITE,
]  # fmt: skip


@pytest.mark.parametrize("more", MALFORMED)
def test_malformed_words_are_two_and_one_line(requests, out, capsys, more):
    assert main([str(requests), "-o", str(out), "--model", "m", "--backend", "openai", *more.split()]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert len(told) <= 301
    assert not out.exists()


def test_a_folder_that_is_made_for_the_output_is_told(tmp_path, caplog, fake):
    for _ in range(2):
        memserve.run.run(["a"], tmp_path / "mistyped" / "a.jsonl", generator=fake(), progress=False)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"the folder {tmp_path / 'mistyped'} was not there: it is made"]


@pytest.mark.parametrize(("line", "name"), [
    ('{"id": "q", "prompt": "a", "prompt": "b"}', "q"), ('{"id": 1, "id": 2, "prompt": "a"}', None),
    ('[["id", 3]', None), ('{"custom_id": "c", "body": {"n": 1, "n": 2}}', "c"),
])  # fmt: skip
def test_a_line_that_says_a_thing_twice_fails_under_its_id(tmp_path, fake, failed, out, line, name):
    (tmp_path / "r.jsonl").write_text(line + "\n", encoding="utf-8")
    memserve.run.run(tmp_path / "r.jsonl", out, generator=fake(), progress=False)
    assert [row["id"] for row in failed()] == [name]


def test_a_missing_file_and_an_unknown_backend_are_two(command, call, serve, requests):
    words = command(serve())
    assert call([*words, "--backend", "nobody"])[0] == 2
    requests.unlink()
    code, told = call(words)
    assert code == 2
    assert "cannot read the requests" in told


def test_a_budget_ends_with_one(serve, command, call, rows, out):
    code, told = call(command(serve(), "--price", "1000:1000", "--max-tokens", "5", "--budget", "0.2usd"))
    assert code == 1
    assert "budget of 0.2 usd" in told
    assert 0 < len(rows(out)) < 15


@pytest.mark.slow
def test_standard_input(serve, command, requests, rows, out):
    words = command(serve())
    words[words.index(str(requests))] = "-"
    done = subprocess.run(words, input=b'"a"\n"b"\n', capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(row["text"] for row in rows(out)) == ["A", "B"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_is_130(serve, command, out, rows, number):
    server = serve(seconds=0.5)
    process = subprocess.Popen(command(server, "--concurrency", "4"), stderr=subprocess.PIPE, text=True)
    while not server.posts:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert len(rows(out)) == len(server.posts)
    assert "not asked" in told


def test_what_a_progress_line_says():
    counts = Counts(total=60, done=40, failed=2, prompt_tokens=900_000, completion_tokens=100_000, usd=1.5)
    progress = Progress(counts, 100, None)
    progress.line(0.0)
    counts.done, counts.completion_tokens = 50, 100_500
    assert progress.line(10.0) == "50/100 done, 2 failed, 1.0M tokens, 50 tokens/s, $1.50, 0:00:48 left"


def test_progress_is_one_output_of_a_notebooks_cell(monkeypatch, capsys):
    """tests/adapters/test_notebook.py shows it in a real kernel."""
    written = []
    handle = SimpleNamespace(update=written.append)
    shown = SimpleNamespace(HTML=str, display=lambda html, display_id: written.append(html) or handle)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    with Progress(Counts(done=3, failed=1), 9, None):
        pass
    assert written[-1].startswith('<progress value="4" max="9"></progress> 3/9 done, 1 failed')
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_live_on_a_terminal_and_plain_in_a_log(monkeypatch, capsys, terminal):
    monkeypatch.setattr("memserve.run.progress.LIVE_SECONDS", 0.02)
    monkeypatch.setattr("memserve.run.progress.LOG_SECONDS", 0.02)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress(Counts(done=3), 9, True):
        time.sleep(0.3)
    told = capsys.readouterr().err
    assert "3/9 done, 0 failed" in told
    assert ("\x1b" in told) is terminal


@pytest.mark.parametrize("linked", [False, True])
def test_damaged_lines_are_told_and_set_aside(tmp_path, capsys, fake, linked):
    """Through a link, too, and behind a repair that was killed."""
    out, real = tmp_path / "a.jsonl", tmp_path / ("real.jsonl" if linked else "a.jsonl")
    if linked:
        out.symlink_to(real)
    (tmp_path / f"{real.name}.repaired").touch()
    memserve.run.run([f"p{number}" for number in range(5)], out, generator=fake(), progress=False)
    assert main(["--verify", str(out)]) == 0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:2], lines[2].replace(b"P2", b"PX"), *lines[3:]]))
    assert main(["--verify", str(out)]) == 1
    assert "4 answers" in (said := capsys.readouterr().err) and "1 is not: line 3" in said
    assert main(["--repair", str(out)]) == 0
    summary = memserve.run.run([f"p{number}" for number in range(5)], out, generator=fake(), progress=False)
    assert (summary.resumed, summary.done) == (4, 1)
    assert main(["--verify", str(out)]) == 0
    assert b"PX" in next(tmp_path.glob("*.damaged-*.jsonl")).read_bytes()
    assert (out.is_symlink(), len([*tmp_path.iterdir()])) == (linked, 2 + linked)


@pytest.mark.parametrize("how", ["--verify", "--repair"])
@pytest.mark.parametrize("text", ['{"id": "a", "prompt": "x"}\n"b"\n', "no JSON\n"])
def test_a_file_that_no_run_wrote_stays_as_it_is(tmp_path, capsys, how, text):
    (file := tmp_path / "requests.jsonl").write_text(text)
    assert main([how, str(file)]) == 2
    assert "no run's output" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_text() == text


def test_where_batch_lines_cannot_go_is_told_before_the_run(tmp_path, capsys):
    (file := tmp_path / "requests.jsonl").write_text('"a"\n')
    words = [str(file), "-o", str(tmp_path / "a.jsonl"), "--backend", "toy"]
    assert main([*words, "--batch-lines", str(tmp_path / "no" / "lines.jsonl")]) == 2
    assert "--batch-lines" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("option", ["--batch-lines", "--page"])
def test_what_is_written_beside_takes_no_other_files_place(tmp_path, capsys, option):
    (file := tmp_path / "requests.jsonl").write_text('"a"\n')
    (notes := tmp_path / "notes.md").write_text("mine")
    out, before = tmp_path / "a.jsonl", sorted(tmp_path.iterdir())
    for target in (file, out, notes, tmp_path / "a.failed.jsonl"):
        assert main([str(file), "-o", str(out), "--backend", "toy", option, str(target)]) == 2
        assert str(target) in capsys.readouterr().err
    assert (sorted(tmp_path.iterdir()), file.read_text(), notes.read_text()) == (before, '"a"\n', "mine")


@pytest.mark.parametrize(
    "more", [["r.jsonl"], ["-o", "a.jsonl"], ["--budget", "5usd"], ["--repair", "b.jsonl"]]
)
def test_verify_stands_alone(tmp_path, capsys, more):
    (file := tmp_path / "b.jsonl").write_text("")
    assert main(["--verify", str(file), *more]) == 2
    assert "--verify" in capsys.readouterr().err


def test_a_run_without_its_files_is_malformed(capsys):
    assert main([]) == 2
    assert "REQUESTS and -o" in capsys.readouterr().err
