"""Runs through batch services: submitted once whatever happens, every answer fetched."""

from __future__ import annotations

import json

import pytest
from batch_server import ACCESS, PLACE, REGION, SECRET, BatchServer, killed
from extras import need

import memserve
from memserve import errors
from memserve.http.engine import rows as rows_of
from memserve.run import batch_service, run
from memserve.run.requests import read_item

BASES = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}
BACKENDS = pytest.mark.parametrize("backend", sorted(BASES))


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(batch_service, "FIRST_POLL", 0.02)
    monkeypatch.setattr(batch_service, "LOOK_SECONDS", 0.02)


def opened(server, backend, **options):
    return memserve.generator(
        "m", backend=backend, base_url=server.url + BASES[backend], api_key="k", **options
    )


@BACKENDS
def test_all_is_submitted_and_fetched(backend, out, rows, failed):
    prompts = [{"id": number, "prompt": f"p{number}"} for number in range(7)]
    with BatchServer(fail=("p3",)) as server, opened(server, backend) as generator:
        summary = run(prompts, out, generator=generator, batch=True, progress=False)
    assert (summary.done, summary.failed, len(server.batches)) == (6, 1, 1)
    assert {row["id"]: row["text"] for row in rows(out)} == {n: f"P{n}" for n in range(7) if n != 3}
    assert [row["id"] for row in failed()] == [3]
    assert not out.with_name("answers.batches.jsonl").exists()


@BACKENDS
@pytest.mark.parametrize("shape", [[1], "x", 5, {"response": {"body": 7}}, {"candidates": 3, "content": 4}])
def test_an_answer_of_no_known_shape_costs_none_of_the_others(backend, out, rows, failed, shape):
    with BatchServer(odd={"p3": shape}) as server, opened(server, backend) as generator:
        prompts = [{"id": number, "prompt": f"p{number}"} for number in range(5)]
        run(prompts, out, generator=generator, batch=True, progress=False)
    assert {row["id"] for row in rows(out)} == {0, 1, 2, 4}
    assert [row["id"] for row in failed()] == [3]
    assert not out.with_name("answers.batches.jsonl").exists()


@BACKENDS
def test_what_expired_is_asked_again(backend, out):
    with BatchServer(expire=2) as server, opened(server, backend) as generator:
        summary = run([f"p{n}" for n in range(5)], out, generator=generator, batch=True, progress=False)
    assert (summary.done, summary.failed) == (5, 0)
    assert sorted(server.asked.values()) == [1, 1, 1, 2, 2]


@BACKENDS
def test_a_run_that_was_stopped_is_fetched_by_the_next(backend, out, monkeypatch):
    with BatchServer(seconds=0.4) as server:
        with opened(server, backend) as generator, monkeypatch.context() as patched:
            patched.setattr(batch_service.BatchLoop, "_sleep", lambda loop, seconds: _stopped(loop))
            run(["a", "b"], out, generator=generator, batch=True, progress=False)
        assert out.with_name("answers.batches.jsonl").exists()
        with opened(server, backend) as generator:
            summary = run(["a", "b", "c"], out, generator=generator, batch=True, progress=False)
    assert (summary.done, summary.failed) == (3, 0)
    assert set(server.asked.values()) == {1}


@BACKENDS
def test_an_answer_that_is_told_again_as_a_failure_is_paid_for_once(backend, out):
    with BatchServer() as server, opened(server, backend) as generator:
        server.echo = True
        summary = run(["a", "b"], out, generator=generator, batch=True, progress=False)
    assert (summary.done, summary.failed, set(server.asked.values())) == (2, 0, {1})


def test_a_budget_counts_what_an_earlier_run_left_with_the_provider(out, monkeypatch):
    held, new = [f"a{n}" for n in range(5)], [f"b{n}" for n in range(50)]
    options = {"settings": {"max_tokens": 5}, "batch": True, "progress": False}
    with BatchServer(seconds=0.4) as server:
        with opened(server, "openai") as generator, monkeypatch.context() as patched:
            patched.setattr(batch_service.BatchLoop, "_sleep", lambda loop, seconds: _stopped(loop))
            run(held, out, generator=generator, **options)
        with opened(server, "openai") as generator, pytest.raises(errors.BudgetSpent):
            run([*new, *held], out, generator=generator, budget="300tok", **options)
    assert 5 * 15 < 15 * sum(server.asked.values()) <= 300


def test_the_answers_of_a_batch_are_never_more_than_is_read(out, monkeypatch):
    monkeypatch.setattr(batch_service, "MOST_ANSWERS", 3 * batch_service.ANSWER + 20_000)
    with BatchServer() as server, opened(server, "openai") as generator:
        lines = [{"prompt": f"p{n}", "max_tokens": 1 if n < 4 else 3000} for n in range(6)]
        run(lines, out, generator=generator, batch=True, progress=False)
    assert [len(one["requests"]) for one in server.batches.values()] == [4, 1, 1]


async def _stopped(loop):
    loop.stop()


@BACKENDS
def test_a_batch_whose_creation_nobody_answered_is_found(backend, out):
    with BatchServer(slow=1.5) as server, opened(server, backend, timeout=0.3) as generator:
        for _ in range(8):
            try:
                summary = run(["a", "b"], out, generator=generator, batch=True, progress=False)
                break
            except errors.RemoteError:
                continue
    assert summary.done + summary.resumed == 2
    assert set(server.asked.values()) == {1}


@pytest.fixture
def amazon(monkeypatch):
    """A server, and a generator on it; AWS's own code proves each signature."""
    need("botocore.auth", "oracles")
    with BatchServer(fail=("p3",), expire=2) as server:
        for name, value in {
            "ACCESS_KEY_ID": ACCESS,
            "SECRET_ACCESS_KEY": SECRET,
            "ENDPOINT_URL": server.url,
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        place = {"region": REGION, "base_url": server.url, **PLACE}
        with memserve.generator("m", backend="bedrock", max_retries=0, **place) as generator:
            yield server, generator


def test_bedrock_answers_by_way_of_its_store_and_the_rest_one_by_one(amazon, out, rows, failed):
    server, generator = amazon
    prompts = [{"id": number, "prompt": f"p{number}"} for number in range(120)]
    summary = run(prompts, out, generator=generator, batch=True, progress=False)
    assert (summary.done, summary.failed, len(server.batches)) == (119, 1, 1)
    assert {row["id"]: row["text"] for row in rows(out)} == {n: f"P{n}" for n in range(120) if n != 3}
    assert sorted(server.single) == ["p0", "p1"]
    assert [row["id"] for row in failed()] == [3]


def test_a_job_on_bedrock_that_no_list_shows_is_created_once(amazon, out, monkeypatch):
    """Its creation was not answered, and the list is late: the same token is the same job."""
    server, generator = amazon
    service = generator.batch_service()
    shown = service._control.fetch

    async def lost(call, read, *, retried=True):
        found = await shown(call, read, retried=retried)
        if call.method == "POST" and not lost.told:
            lost.told = True
            raise errors.ConnectionFailed("the answer was lost")
        return {} if "nameContains" in call.url else found

    lost.told = False
    monkeypatch.setattr(service._control, "fetch", lost)
    prompts = [f"q{number}" for number in range(101)]
    with pytest.raises(errors.ConnectionFailed):
        run(prompts, out, generator=generator, batch=True, progress=False)
    assert run(prompts, out, generator=generator, batch=True, progress=False).done == 101
    assert (len(server.batches), len(server.single)) == (1, 2)


def test_a_request_that_cannot_be_asked_leaves_too_few_for_a_job(amazon, out):
    server, generator = amazon
    prompts = [*({"prompt": f"q{n}"} for n in range(99)), {"prompt": "x", "extra": {"bedrock_nothing": 1}}]
    summary = run(prompts, out, generator=generator, batch=True, progress=False)
    assert (summary.done, summary.failed, len(server.batches), len(server.single)) == (99, 1, 0, 99)


def test_fewer_than_bedrock_takes_are_refused_before_anything_is_sent(amazon, out):
    server, generator = amazon
    with pytest.raises(errors.InvalidInput, match="99 requests: too few"):
        run([f"p{n}" for n in range(99)], out, generator=generator, batch=True, progress=False)
    assert not server.objects
    assert not out.with_name("answers.batches.jsonl").exists()


def test_a_batch_on_bedrock_needs_its_place(out):
    opened = memserve.generator("m", backend="bedrock", region="us-east-1", api_key="k")
    with opened as generator, pytest.raises(errors.InvalidInput, match="batch_uri"):
        run(["a"], out, generator=generator, batch=True, progress=False)


def test_half_the_price_is_counted(out, rows):
    with BatchServer() as server, opened(server, "openai") as generator:
        run(["a"], out, generator=generator, batch=True, price=(2.0, 4.0), progress=False)
        whole = rows(out)[0]["usd"]
    assert whole == pytest.approx((10 * 2 + 5 * 4) / 1e6), "a price of the caller's is the price"


def test_what_has_no_service_is_refused(out, fake):
    with pytest.raises(errors.Unsupported, match="batch"):
        run(["a"], out, generator=fake(), batch=True, progress=False)


def test_a_broken_line_costs_none_of_the_others():
    whole = '{"custom_id": "a"}\r\n'
    for broken in ("<html>\n", whole[:9], "[1]\n5\n"):
        assert [row["custom_id"] for row in rows_of(whole + broken, {})] == ["a"]
    with pytest.raises(errors.BadAnswer):
        rows_of("<html>\n</html>", {})


@pytest.mark.parametrize(("error", "said"), [
    (AttributeError("'list' object"), "no known shape"), (errors.NotFound("gone"), "remove .*batches"),
])  # fmt: skip
def test_a_batch_that_cannot_be_read_is_told_and_stays_with_the_provider(out, monkeypatch, error, said):
    async def broken(*words):
        raise error

    with BatchServer() as server, opened(server, "openai") as generator:
        monkeypatch.setattr(type(generator.batch_service()), "batch_answers", broken)
        with pytest.raises(errors.RemoteError, match=said):
            run(["a", "b"], out, generator=generator, batch=True, progress=False)
    assert out.with_name("answers.batches.jsonl").exists()


@pytest.mark.parametrize("left", [1, 40, -1])
def test_what_a_crash_left_of_a_line_takes_no_other_with_it(out, fake, left):
    """A full disk or a power cut tore the plan of a batch; the next plan must be found again."""
    items = [read_item(text, index, {}) for index, text in enumerate("ab")]
    path = out.with_name("answers.batches.jsonl")
    batch_service.Ledger(path).plan(items)
    path.write_bytes(path.read_bytes()[:left])
    made = batch_service.Ledger(path).plan(items)
    assert list(batch_service.Ledger(path).batches) == [made.name]


def test_a_list_of_batches_that_is_not_ours_stays(out, tmp_path):
    mine = tmp_path / "answers.batches.jsonl"
    mine.write_text(json.dumps({"my": "own"}) + "\n")
    with BatchServer() as server, opened(server, "openai") as generator, pytest.raises(errors.InvalidInput):
        run(["a"], out, generator=generator, batch=True, progress=False)
    assert server.batches == {}
    assert mine.read_text() == '{"my": "own"}\n'


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "count"), [("anthropic", 6), ("openai", 6), ("bedrock", 100)])
def test_killed_at_random_moments(backend, count, tmp_path):
    if backend == "bedrock":
        need("botocore.auth", "oracles")
    _, twice, lost = killed(tmp_path, kills=4, count=count, backend=backend, seed=7)
    assert (twice, lost) == (0, 0)


def test_several_batches_where_one_is_too_small(out, monkeypatch):
    with BatchServer() as server, opened(server, "openai") as generator:
        service = type(generator.batch_service())
        monkeypatch.setattr(service, "batch_limits", (3, 1 << 20))
        summary = run([f"p{n}" for n in range(8)], out, generator=generator, batch=True, progress=False)
    assert (summary.done, len(server.batches)) == (8, 3)
