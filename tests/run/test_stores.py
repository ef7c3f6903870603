"""Outputs on object stores: carried in parts, found again on another machine."""

from __future__ import annotations

import json

import fsspec
import pytest
from batch_server import BatchServer
from fsspec.implementations.memory import MemoryFileSystem

import memserve
from memserve import errors
from memserve.run import batch_service, run
from memserve.run.store import files
from memserve.run.store.files import StoredOutput

URL = "s3://bucket/night/answers.jsonl"


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A store in this process, and the folder of a machine."""
    fsspec.register_implementation("s3", MemoryFileSystem, clobber=True)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.clear_instance_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    yield fsspec.filesystem("s3")
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize(("url", "package"), [("s3://b/a.jsonl", "s3fs"), ("gs://b/a.jsonl", "gcsfs")])
def test_a_missing_store_is_named_by_its_package(monkeypatch, url, package):
    def absent(scheme, **options):
        raise ImportError(f"Install {package} to access {scheme}")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    with pytest.raises(errors.BackendMissing, match=f"^'stores' needs {package}, which"):
        StoredOutput(url)


def ids(store, name="/bucket/night/answers.jsonl"):
    return sorted(json.loads(line)["id"] for line in store.cat_file(name).splitlines())


def requests(*numbers):
    return [{"id": number, "prompt": f"p{number}"} for number in numbers]


def test_the_whole_object_is_there_at_the_end(store, fake):
    summary = run(requests(1, 2, 3), URL, generator=fake({"p3": [errors.BadRequest("no")]}), progress=False)
    assert (summary.done, summary.failed, summary.output) == (2, 1, URL)
    assert ids(store) == [1, 2]
    assert ids(store, "/bucket/night/answers.failed.jsonl") == [3]
    assert not store.exists("/bucket/night/answers.jsonl.parts")


def test_another_machine_goes_on(store, fake, monkeypatch, tmp_path):
    run(requests(1, 2), URL, generator=fake(), progress=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    summary = run(requests(1, 2, 3), URL, generator=fake(), progress=False)
    assert (summary.resumed, summary.done) == (2, 1)
    assert ids(store) == [1, 2, 3]


def test_parts_outlive_their_machine(store, monkeypatch, tmp_path):
    first = StoredOutput(URL)
    first.fetch()
    first.path.write_bytes(b'{"id": 1}\n{"id": 2}\n{"id"')
    first.send()
    first.path.write_bytes(b'{"id": 1}\n{"id": 2}\n{"id": 3}\n')
    first.send()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    second = StoredOutput(URL)
    second.fetch()
    assert second.path.read_bytes() == b'{"id": 1}\n{"id": 2}\n{"id": 3}\n'
    assert second.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_parts_that_the_whole_holds_already_count_once(store, dropped, monkeypatch, tmp_path):
    """A machine may vanish between the whole object and the removal of any of its parts."""
    first = StoredOutput(URL)
    first.fetch()
    for lines in (1, 2):
        first.path.write_bytes(b"".join(b'{"id": %d}\n' % number for number in range(lines)))
        first.send()
    store.put_file(str(first.path), "/bucket/night/answers.jsonl")
    for name in store.ls("/bucket/night/answers.jsonl.parts", detail=False)[:dropped]:
        store.rm_file(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    second = StoredOutput(URL)
    second.fetch()
    assert second.path.read_bytes() == first.path.read_bytes()


def test_a_fresh_start_keeps_the_old_answers(store, fake):
    run(requests(1), URL, generator=fake(), progress=False)
    run(requests(2), URL, generator=fake(), resume=False, progress=False)
    assert ids(store) == [2]
    assert ids(store, "/bucket/night/answers.jsonl.old-1") == [1]


def test_a_store_that_refuses_is_named_and_the_answers_stay(store, fake, monkeypatch):
    def refused(*words, **named):
        raise PermissionError("no")

    monkeypatch.setattr(MemoryFileSystem, "put_file", refused)
    with pytest.raises(errors.RunError, match=r"cannot write s3://bucket.*answers are in"):
        run(requests(1), URL, generator=fake(), progress=False)
    assert b'"id": 1' in StoredOutput(URL).path.read_bytes()


@pytest.mark.parametrize(
    "url", ["s3://bucket", "obs://bucket/a.jsonl", "https://x.test/a.jsonl", "ftp://h/a.jsonl"]
)
def test_what_is_no_object_is_refused_by_name(url, fake, store, monkeypatch):
    monkeypatch.delenv("OBS_ENDPOINT", raising=False)
    with pytest.raises(errors.InvalidInput, match=r"names no object|OBS_ENDPOINT|is a URL"):
        run(requests(1), url, generator=fake(), progress=False)


def test_parts_are_carried_while_a_run_goes_on(store, fake, monkeypatch):
    monkeypatch.setattr(files, "PART_SECONDS", 0.05)
    seen = []
    monkeypatch.setattr(StoredOutput, "_drop_parts", lambda self: seen.extend(self._parts()))
    run(requests(*range(8)), URL, generator=fake(seconds=0.2), concurrency=2, progress=False)
    assert len(seen) >= 2


def test_another_machine_fetches_the_batch_that_was_paid_for(store, monkeypatch, tmp_path):
    """The list of batches is with the store before a batch is with the provider, and goes with it."""
    monkeypatch.setattr(batch_service, "FIRST_POLL", 0.02)
    beside = "/bucket/night/answers.batches.jsonl"
    with BatchServer(seconds=0.3) as server:
        for machine, left in (("one", True), ("two", False)):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
            with (
                memserve.generator("m", backend="openai", base_url=f"{server.url}/v1", api_key="k") as opened,
                monkeypatch.context() as patched,
            ):
                if left:
                    patched.setattr(batch_service.BatchLoop, "_sleep", _leave)
                run(requests(1, 2), URL, generator=opened, batch=True, progress=False)
            assert store.exists(beside) == left
    assert (ids(store), set(server.asked.values())) == ([1, 2], {1})


async def _leave(loop, seconds):
    loop.stop()
