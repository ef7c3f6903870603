"""Killed, interrupted, out of disk, or started twice: nothing that was answered is lost or asked again."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import HANG_SECONDS, until

from memserve.errors import OutputInUse, RunError, StorageFull
from memserve.run import run

CLIENT = Path(__file__).with_name("client.py")


@pytest.fixture
def requests(tmp_path):
    def write(count):
        path = tmp_path / "requests.jsonl"
        rows = [json.dumps({"id": f"q{n}", "prompt": f"prompt {n}"}) for n in range(count)]
        path.write_text("\n".join(rows), encoding="utf-8")
        return path

    return write


def start_command(path, out, server, *more):
    """The command line with a real backend."""
    which = ["--model", "m", "--backend", "openai", "--base-url", server.url, "--concurrency", "8", "--quiet"]
    command = [sys.executable, "-m", "memserve.run", str(path), "-o", str(out), *which, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start(path, out, server, pause=0.0, **options):
    command = [sys.executable, str(CLIENT), str(path), str(out), server.url, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(path, out, server, begin=start):
    """Run to the end, which must be a good one."""
    process = begin(path, out, server)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, errors


def whole_lines(out):
    lines = out.read_bytes().splitlines(keepends=True) if out.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def wait_for_lines(out, count):
    until(lambda: len(whole_lines(out)) >= count, every=0.01)


def kill_again_and_again(serve, path, out, count, kills):
    """Kill after a random number of further answers; the prompts that were posted though answered."""
    server, chance, repeated = serve(seconds=0.005), random.Random(7), []
    for _ in range(kills):
        done = {row["id"].replace("q", "prompt ") for row in whole_lines(out)}
        before = len(server.posts)
        process = start_command(path, out, server)
        wait_for_lines(out, min(count, len(done) + chance.randint(1, count // kills)))
        time.sleep(chance.random() / 50)
        process.kill()
        process.communicate()
        repeated += [prompt for prompt in server.posts[before:] if prompt in done]
    finish(path, out, server, start_command)
    return repeated


def check_killed(serve, requests, out, count, kills):
    repeated = kill_again_and_again(serve, requests(count), out, count, kills)
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(f"q{n}" for n in range(count))
    assert all(row["text"] == row["id"].replace("q", "PROMPT ") for row in rows)
    assert repeated == []


@pytest.mark.slow
def test_killed_three_times(serve, requests, out):
    check_killed(serve, requests, out, 300, 3)


@pytest.mark.slow
def test_killed_twenty_times(serve, requests, out):
    check_killed(serve, requests, out, 3000, 20)


@pytest.mark.parametrize("beside", [False, pytest.param(True, marks=pytest.mark.slow)],
                         ids=["again and again", "with a run that has no budget between"])  # fmt: skip
def test_a_budget_counts_what_was_in_flight_when_a_run_was_killed(serve, requests, out, fake, beside):
    """A machine that is killed each time before an answer or two spends the budget once."""
    server, path, most, runs = serve(seconds=0.3), requests(200), 150, 0
    limits = ["--budget", f"{most}tok", "--max-tokens", "5"]
    process = start_command(path, out, server, *limits)
    while process.poll() is None and runs < 100:
        seen, runs = len(server.posts), runs + 1
        wanted = seen + random.Random(runs).choice((1, 1, 2))
        until(lambda: len(server.posts) >= wanted or process.poll() is not None, every=0.01)  # noqa: B023
        if process.poll() is None:
            process.kill()
            process.communicate()
            if beside and runs == 3:
                run(["prompt 0"], out, generator=fake(), settings={"max_tokens": 5}, progress=False)
            process = start_command(path, out, server, *limits)
    assert "does not bear another request" in process.communicate()[1]
    assert runs > 3
    assert 15 * len(server.posts) <= most + 15
    assert not out.with_name("answers.jsonl.reserve").exists()


def test_a_budget_counts_what_a_second_ctrl_c_left(serve, requests, out):
    """Requests that were sent and are not waited for may be billed all the same."""
    server = serve(seconds=30)
    process = start_command(requests(20), out, server, "--budget", "900tok", "--max-tokens", "5")
    until(lambda: server.posts, every=0.01)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=HANG_SECONDS)
    row = json.loads(out.with_name("answers.failed.jsonl").read_text())
    assert row["lost_tokens"] >= 15


def test_two_runs_on_one_output(serve, requests, out, fake):
    server = serve(seconds=0.2)
    process = start(requests(50), out, server)
    wait_for_lines(out, 1)
    with pytest.raises(OutputInUse, match="another run is writing"):
        run(["a"], out, generator=fake())
    process.kill()
    process.communicate()
    assert run(["a"], out, generator=fake()).done == 1


def test_two_runs_on_one_output_in_one_process(fake, out):
    generator = fake(seconds=0.5)
    thread = threading.Thread(target=run, args=(["a"], out), kwargs={"generator": generator})
    thread.start()
    until(lambda: generator.asked)
    with pytest.raises(OutputInUse):
        run(["b"], out, generator=fake())
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_is_in_flight_finish(serve, requests, out, number):
    server = serve(seconds=0.3)
    path = requests(100)
    process = start(path, out, server)
    wait_for_lines(out, 8)
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == (-number if number == signal.SIGTERM else -signal.SIGINT), errors
    assert "stopping cleanly" in errors
    assert len(whole_lines(out)) == len(server.posts) < 100
    server.seconds = 0
    finish(path, out, server)
    assert len(server.posts) == len(set(server.posts)) == 100


@pytest.mark.slow
def test_a_signal_breaks_off_a_reader_that_waits(serve, requests, out):
    process = start(requests(5), out, serve(), pause=3600)
    until(lambda: out.exists())
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
def test_a_file_size_limit_stops_the_run_cleanly(serve, requests, out):
    server, path = serve(), requests(200)

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    process = start(path, out, server, preexec_fn=small)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert "StorageFull" in errors
    kept = {row["id"] for row in whole_lines(out)}
    assert out.read_bytes().endswith(b"\n")
    assert 10 < len(kept) < 60
    posts = len(server.posts)
    finish(path, out, server)
    assert {prompt.replace("prompt ", "q") for prompt in server.posts[posts:]}.isdisjoint(kept)
    assert len(whole_lines(out)) == 200


def test_a_full_disk_costs_no_answer(fake, small_disk):
    out = small_disk / "answers.jsonl"
    generator = fake(seconds=0.01)
    with pytest.raises(StorageFull, match="run again"):
        run((f"prompt {n}" for n in range(100_000)), out, generator=generator, concurrency=16)
    asked = len(generator.asked)
    assert len(whole_lines(out)) == asked, "what was in flight went into the room that was kept"
    (small_disk / "ballast").unlink()
    again = fake()
    summary = run([f"prompt {n}" for n in range(asked + 50)], out, generator=again)
    assert (summary.done, summary.resumed) == (50, asked)


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs privileges that are missing here")
    (place / "ballast").write_bytes(bytes(1_600_000))
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("taken", [False, True, None], ids=["deleted", "replaced", "with its folder"])
def test_a_file_that_is_deleted_during_the_run_comes_back(fake, out, taken):
    out = out.parent / "folder" / out.name

    def delete():
        until(lambda: whole_lines(out))
        shutil.rmtree(out.parent) if taken is None else out.unlink()
        if taken:
            out.write_text("somebody else's")

    timer = threading.Timer(0.4, delete)
    timer.start()
    with pytest.raises(RunError, match="deleted"):
        run([f"p{n}" for n in range(400)], out, generator=fake(seconds=0.05), concurrency=4)
    timer.join()
    found = out.with_name(out.name + ".rescued") if taken else out
    assert len(found.read_text().splitlines()) > 8
    if not taken:
        assert run(["p0"], out, generator=fake()).resumed == 1
