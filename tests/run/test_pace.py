"""Asking as fast as the provider bears, and stopping where waiting does not help."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from memserve import errors
from memserve.protocol import Completion, Usage, observer
from memserve.run import run
from memserve.run.limits.pace import Pause, Rate


def test_a_rate_is_kept_and_corrected():
    rate = Rate(600)
    starts, now = [], 0.0
    for _ in range(50):
        now += rate.delay(now)
        starts.append(now)
        rate.spend(now)
    assert starts[-1] == pytest.approx(4.9, abs=0.05)
    rate.correct(-10)
    assert rate.delay(now) == 0.0


def test_a_request_above_the_whole_budget_is_asked_all_the_same():
    rate = Rate(1000)
    assert rate.delay(0.0) == 0.0
    rate.spend(0.0, 5000)
    assert rate.delay(0.0) == pytest.approx(300, abs=1)


def test_pauses_grow_until_an_answer_comes():
    pause, waits = Pause(), []
    for _ in range(9):
        now = 1000.0 * len(waits)
        pause.until(now, None, now)
        pause.until(now + 0.1, None, now)  # sent before that pause
        waits.append(pause.delay(now))
    assert waits[0] == pytest.approx(1.0, rel=0.11)
    assert waits[3] == pytest.approx(8.0, rel=0.11)
    assert waits[8] == pytest.approx(60.0, rel=0.11)
    pause.over()
    pause.until(10_000.0, None, 10_000.0)
    assert pause.delay(10_000.0) < 1.2


def test_requests_a_minute(fake, out):
    began = time.monotonic()
    run([f"p{n}" for n in range(21)], out, generator=fake(), rpm=600)
    assert time.monotonic() - began > 1.9


def test_tokens_a_minute_are_corrected_by_what_was_counted(fake, out):
    """Half of what was estimated is not enough: without a correction the run would take half as long."""
    script = {"*": [Completion(text="x", finish_reason="stop", usage=Usage(380, 20)) for _ in range(30)]}
    began = time.monotonic()
    run(
        ["w" * 270 + str(n) for n in range(21)],
        out,
        generator=fake(script),
        tpm=240_000,
        settings={"max_tokens": 10},
    )
    assert time.monotonic() - began > 1.5


def test_a_throttle_pauses_everybody_and_fails_nobody(fake, out):
    generator = fake(seconds=0.01)
    moments = []
    answer = generator.answer

    def throttling(prompt):
        moments.append(time.monotonic())
        if prompt == "p5" and generator.counts["p5"] == 1:
            raise errors.Throttled("slow down", status=429, retry_at=time.time() + 1)
        return answer(prompt)

    generator.answer = throttling
    summary = run([f"p{n}" for n in range(60)], out, generator=generator, concurrency=4)
    assert (summary.done, summary.failed) == (60, 0)
    gaps = [after - before for before, after in pairwise(moments)]
    assert max(gaps) > 0.9, "all wait, not only the one that was throttled"
    assert generator.counts["p5"] == 2


def test_a_throttle_that_lasts_longer_than_patience_ends_the_run_with_its_moment(fake, out):
    tomorrow = time.time() + 86_400
    generator = fake({"b": [errors.Throttled("come back tomorrow", retry_at=tomorrow)]})
    with pytest.raises(errors.Throttled) as told:
        run(["a", "b", "c"], out, generator=generator)
    assert told.value.retry_at == tomorrow
    assert run(["a", "b", "c"], out, generator=fake()).answered == 3


def test_endless_throttling_ends(fake, out):
    generator = fake({"*": [errors.Throttled("no") for _ in range(10_000)]})
    with pytest.raises(errors.Throttled):
        run([f"p{n}" for n in range(100)], out, generator=generator, patience=2)
    assert len(generator.asked) < 40


def test_one_item_that_is_always_throttled_fails_alone(fake, out):
    soon = [errors.Throttled("no", retry_at=time.time()) for _ in range(50)]
    summary = run([f"p{n}" for n in range(30)], out, generator=fake({"p3": soon}, seconds=0.001))
    assert (summary.done, summary.failed) == (29, 1)


@pytest.mark.parametrize("kind", ["QuotaExceeded", "AuthenticationFailed", "PermissionDenied", "NotFound"])
def test_what_would_hit_every_request_ends_the_run_before_a_key_locks(fake, out, kind):
    error = getattr(errors, kind)("no")
    generator = fake({"*": [error for _ in range(1000)]}, seconds=0.01)
    with pytest.raises(type(error)):
        run([f"p{n}" for n in range(1000)], out, generator=generator, concurrency=64)
    assert len(generator.asked) <= 4


def test_a_quota_that_ends_midway_keeps_what_is_in_flight(fake, out, rows):
    generator = fake({"p50": [errors.QuotaExceeded("spent")]}, seconds=0.02)
    with pytest.raises(errors.QuotaExceeded):
        run([f"p{n}" for n in range(500)], out, generator=generator, concurrency=8)
    assert len(rows(out)) == len(generator.asked) - 1


def test_a_missing_model_after_answers_is_one_failure(fake, out):
    generator = fake({"p9": [errors.NotFound("gone")]})
    assert run([f"p{n}" for n in range(20)], out, generator=generator, concurrency=1).failed == 1


def test_an_outage_in_the_middle_is_waited_out_and_fails_nobody(fake, out):
    generator = fake(seconds=0.001)
    down = {"until": None}
    answer = generator.answer

    def flaky(prompt):
        if len(generator.asked) > 100 and down["until"] is None:
            down["until"] = time.monotonic() + 1.5
        if down["until"] and time.monotonic() < down["until"]:
            raise errors.ConnectionFailed("refused")
        return answer(prompt)

    generator.answer = flaky
    summary = run([f"p{n}" for n in range(400)], out, generator=generator, concurrency=16)
    assert (summary.done, summary.failed) == (400, 0)
    assert len(generator.asked) < 400 + 100


@pytest.mark.slow
def test_an_outage_that_does_not_end_ends_the_run(fake, out, failed):
    answers = [None] * 20
    generator = fake({"*": [*answers, *(errors.ConnectionFailed("refused") for _ in range(9999))]})
    with pytest.raises(errors.RunError, match="every request fails"):
        run([f"p{n}" for n in range(5000)], out, generator=generator, patience=1)
    assert all(row["retryable"] for row in failed())
    assert run([f"p{n}" for n in range(5000)], out, generator=fake()).answered == 5000


def test_the_clients_own_throttles_slow_the_run_down(fake, out):
    """A client that asks again by itself tells each attempt to the observer of the task that asks."""

    class Repeating(fake):
        async def agenerate(self, prompt, **settings):
            hears = observer.get()
            await hears.before(10.0)
            if prompt == "p40":
                hears.failed(errors.Throttled("mended by the client", retry_at=time.time() + 0.5))
                await hears.before(10.0)
            return await super().agenerate(prompt, **settings)

    began = time.monotonic()
    generator = Repeating(seconds=0.005)
    assert run([f"p{n}" for n in range(60)], out, generator=generator, concurrency=8).done == 60
    assert time.monotonic() - began > 0.5
    assert observer.get() is None
