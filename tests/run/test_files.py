"""The files of a run: never another's, never two names of one, never gone without a word."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys

import pytest
from waiting import until

from memserve.errors import InvalidInput, MemserveError, RunError
from memserve.run import answers, run
from memserve.run.store import journal, results

FOREIGN = [
    b"my own notes\n",
    b'{"id": "a", "text": "an answer"}\n',
    b'{"id": "a", "error": "Mine", "message": "x", "retryable": true, "at": 1}\n',
    b"\0" * 4096,
]


@pytest.mark.parametrize(
    "name", ["answers.failed.jsonl", "answers.jsonl.reserve", "answers.failed.jsonl.new"]
)
@pytest.mark.parametrize("content", FOREIGN)
def test_what_a_run_did_not_write_is_refused_and_stays(out, fake, name, content):
    run([{"promt": "x"}], out, generator=fake())  # so that the failures are rewritten
    theirs = out.with_name(name)
    theirs.write_bytes(content)
    with pytest.raises(InvalidInput, match=re.escape(str(theirs))):
        run(["a", {"promt": "x"}], out, generator=fake())
    assert theirs.read_bytes() == content


def test_another_runs_answers_are_never_taken_for_failures(out, fake):
    """100 paid answers were destroyed so."""
    other = out.with_name("answers.failed.jsonl")
    run([{"id": n, "prompt": str(n)} for n in range(100)], other, generator=fake())
    before = other.read_bytes()
    generator = fake()
    with pytest.raises(InvalidInput, match=r"answers\.failed\.jsonl"):
        run(["a", {"promt": "x"}], out, generator=generator)
    assert (other.read_bytes(), generator.asked, out.exists()) == (before, [], False)


def test_a_file_of_failures_is_no_output_and_no_input_of_its_own_run(out, fake):
    run(["a", {"promt": "x"}], out, generator=fake())
    failed = out.with_name("answers.failed.jsonl")
    before = failed.read_bytes()
    for requests, output in ((["a"], failed), (str(failed), out)):
        with pytest.raises(InvalidInput, match=r"failures"):
            run(requests, output, generator=fake())
    assert failed.read_bytes() == before


def test_an_output_that_keeps_nothing_is_refused(fake):
    generator = fake()
    with pytest.raises(InvalidInput, match="no regular file"):
        run(["a"], "/dev/null", generator=generator)
    assert generator.asked == []


@pytest.mark.parametrize("how", ["same", "link", "hard link", "dots"])
@pytest.mark.parametrize("pair", ["output and cache", "output and input", "input and cache"])
def test_two_names_of_one_file_are_refused(tmp_path, fake, pair, how):
    real = tmp_path / "real.jsonl"
    real.write_text('"a"\n')
    other = tmp_path / "other.jsonl"
    if how == "link":
        other.symlink_to(real)
    elif how == "hard link":
        os.link(real, other)
    else:
        other = real if how == "same" else tmp_path / "x" / ".." / "real.jsonl"
        (tmp_path / "x").mkdir()
    requests, output, cache = ["a"], tmp_path / "out.jsonl", None
    if "output" in pair:
        output = real
    if "cache" in pair:
        cache = other
    if "input" in pair:
        requests = str(real if pair.startswith("input") else other)
    with pytest.raises(InvalidInput, match="both"):
        run(requests, output, generator=fake(), cache=cache)
    assert real.read_text() == '"a"\n'


@pytest.mark.parametrize(
    ("where", "url"),
    [
        *(("output", url) for url in ("ftp://h/a.jsonl", "az://b/a.jsonl", "https://h/a.jsonl")),
        *((where, url) for where in ("requests", "cache") for url in ("s3://b/a.jsonl", "obs://b/a")),
    ],
)
def test_urls_are_refused_by_name(tmp_path, monkeypatch, fake, url, where):
    monkeypatch.chdir(tmp_path)
    given = {"requests": ["a"], "output": "out.jsonl", "cache": None, where: url}
    generator = fake()
    with pytest.raises(InvalidInput, match=url.partition(":")[0]):
        run(given["requests"], given["output"], generator=generator, cache=given["cache"])
    assert (generator.asked, list(tmp_path.iterdir())) == ([], [])


def test_files_are_their_owners_alone(out, fake, tmp_path):
    before = os.umask(0o022)
    try:
        run(["a", {"promt": "x"}], out, generator=fake(), cache=tmp_path / "c.sqlite")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"answers.jsonl": 0o600, "answers.failed.jsonl": 0o600, "c.sqlite": 0o600}


def test_a_malformed_line_keeps_its_id_and_names_the_nearest_key(tmp_path, out, fake, failed):
    requests = tmp_path / "r.jsonl"
    requests.write_text('{"id": "a", "prompt": "x"}\n{"id": "b", "promt": "x"}\n{"id": 3, "prompt": 5}\n')
    run(requests, out, generator=fake())
    assert [(row["id"], row["line"]) for row in failed()] == [("b", 2), (3, 3)]
    assert "did you mean prompt" in failed()[0]["message"]


def _disturbed(out, fake, disturb, count=400):
    """A run whose output is disturbed while it is written; the error that ends it."""

    def requests():
        for n in range(count):
            if n == count // 2:
                until(lambda: out.stat().st_size > 2000)
                disturb()
            yield {"id": n, "prompt": str(n)}

    with pytest.raises(RunError) as caught:
        run(requests(), out, generator=fake(seconds=0.02), concurrency=4, order="given")
    return caught.value


def _ids(path):
    return [row["id"] for row in answers(path)]


def test_a_moved_output_ends_the_run_and_says_where_its_answers_are(out, fake):
    moved = out.with_name("answers.jsonl.1")
    error = _disturbed(out, fake, lambda: out.rename(moved))
    assert "moved" in str(error)
    assert str(moved) in str(error)
    kept = _ids(moved)
    assert len(kept) == len(set(kept)) > 10
    moved.rename(out)
    generator = fake()
    run([{"id": n, "prompt": str(n)} for n in range(400)], out, generator=generator)
    assert len(generator.asked) == 400 - len(kept)


def test_a_replaced_output_ends_the_run_and_is_left_alone(out, fake):
    moved = out.with_name("moved.jsonl")

    def replaced():
        out.rename(moved)
        out.write_text('{"id": "theirs", "text": "x"}\n')

    assert "replaced" in str(_disturbed(out, fake, replaced))
    assert _ids(out) == ["theirs"]
    assert len(_ids(moved)) > 10


@pytest.mark.parametrize("left", [0, 1000])
def test_a_truncated_output_ends_the_run_and_stays_readable(out, fake, left):
    error = _disturbed(out, fake, lambda: os.truncate(out, left))
    assert "cut during the run" in str(error)
    generator, kept = fake(), _ids(out)
    run([{"id": n, "prompt": str(n)} for n in range(400)], out, generator=generator)
    assert len(generator.asked) == 400 - len(kept)
    assert sorted(_ids(out)) == list(range(400))


def test_a_sync_that_fails_ends_the_run(out, fake, monkeypatch):
    """The kernel may have dropped what it could not write, so a second sync that succeeds proves nothing."""
    real, calls = os.fsync, []

    def broken(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    generator = fake(seconds=0.05)
    with pytest.raises(RunError, match="cannot sync"):
        run([str(n) for n in range(400)], out, generator=generator, concurrency=2)
    assert len(generator.asked) < 400


def test_a_sync_that_fails_at_the_very_end_is_told(out, fake, monkeypatch):
    monkeypatch.setattr(journal, "SYNC_SECONDS", 1000.0)
    monkeypatch.setattr(os, "fsync", _failing_once_written(out))
    with pytest.raises(RunError, match="cannot sync"):
        run(["a"], out, generator=fake())


def _failing_once_written(out):
    def fsync(descriptor):
        if out.exists() and out.stat().st_size:
            raise OSError(5, "Input/output error")

    return fsync


def test_flipped_bits_in_the_failures_ask_again_or_are_refused(out, fake):
    """A damaged row is no failure: its request is asked again, and nothing else comes of it."""
    dice = random.Random(14)
    bad = {"x": [InvalidInput("never")], "y": [InvalidInput("never")]}
    requests = [{"id": name, "prompt": name} for name in "xyz"]
    run(requests, out, generator=fake(bad))
    path = out.with_name("answers.failed.jsonl")
    whole, answered = path.read_bytes(), out.read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 3, 30])):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        out.write_bytes(answered)
        try:
            run(requests, out, generator=fake())
        except MemserveError:
            assert path.read_bytes() == data
            continue
        assert all(row["text"] == row["id"].upper() for row in answers(out))


HANGS_UP = """
import asyncio, signal, sys
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[2]))
from memserve.protocol import Capabilities, Completion
from memserve.run import run
class Slow:
    capabilities = Capabilities(backend="slow", model="m")
    async def agenerate(self, prompt, **settings):
        await asyncio.sleep(0.05)
        return Completion(text=prompt, finish_reason="stop")
run([str(n) for n in range(int(sys.argv[3]))], sys.argv[1], generator=Slow(), concurrency=2, progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("handler", "count", "code"), [("SIG_DFL", 4000, -1), ("SIG_IGN", 120, 0)])
def test_a_closed_session_stops_a_run_cleanly_unless_it_is_to_be_ignored(out, handler, count, code):
    words = [sys.executable, "-c", HANGS_UP, str(out), handler, str(count)]
    running = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    until(lambda: out.exists() and out.stat().st_size > 1000)
    running.send_signal(signal.SIGHUP)
    assert running.wait(120) == code
    assert not out.with_name("answers.jsonl.reserve").exists()
    assert len(list(answers(out))) == count if code == 0 else count


def test_the_requests_are_looked_at_before_an_engine_is_opened(tmp_path, monkeypatch, capsys):
    from memserve.run.__main__ import main

    monkeypatch.setattr("memserve.generator", lambda *_, **__: pytest.fail("an engine was opened"))
    assert main([str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "o.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_what_a_killed_run_leaves_is_ours(out, fake):
    """A reserve and a torn row of failures make way for the next run."""
    run(["a", {"promt": "x"}], out, generator=fake())
    failed = out.with_name("answers.failed.jsonl")
    failed.write_bytes(failed.read_bytes() + failed.read_bytes()[:30])
    out.with_name("answers.jsonl.reserve").write_bytes(journal._RESERVE_HEADER + bytes(1 << 20))
    out.with_name("answers.failed.jsonl.new").write_bytes(failed.read_bytes())
    run(["a", {"promt": "x"}, "b"], out, generator=fake())
    assert sorted(path.name for path in out.parent.iterdir()) == ["answers.failed.jsonl", "answers.jsonl"]
    assert results.is_ours(failed)


@pytest.mark.parametrize("edit", [
    lambda held: held.replace(b"\n", b"\r\n"), lambda held: b"\xef\xbb\xbf" + held, lambda held: held[:-1],
])  # fmt: skip
def test_a_repair_keeps_answers_that_an_editor_only_saved_again(edit, fake, out):
    run(["a", "b"], out, generator=fake(), progress=False)
    written = out.read_bytes()
    out.write_bytes(edit(written))
    journal.repair(out)
    assert out.read_bytes() == written
