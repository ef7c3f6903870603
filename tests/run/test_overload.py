"""A run finds what a server can do and follows it: on a clock that jumps, with the real client."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulated import Bucket, Server, run

from memserve.run.limits.pace import AcceptedRate


def prompts(count):
    return [f"p{number}" for number in range(count)]


SLOW = pytest.mark.slow
FOUND = 8
"""Requests asked twice where even the first four in flight are more than one slot answers in time."""


def goodput(server, results, ideal, found=0):
    """Of the ideal; nothing failed, and hardly anything was asked twice."""
    assert not results.failures
    assert server.posts <= 1.1 * results.done + found
    return ideal / (server.last - server.first)


@pytest.mark.parametrize("finishes", [True, False])
@pytest.mark.parametrize("slots", [4, *(pytest.param(slots, marks=SLOW) for slots in (16, 64, 256))])
def test_goodput_of_a_server_with_so_many_slots(slots, finishes):
    server, count = Server(slots, 1.0, finishes=finishes), 44 * slots
    results, _ = run(server, prompts(count), timeout=20)
    assert results.done == count
    assert goodput(server, results, count / slots) >= 0.9


FEW = settings(max_examples=8, deadline=None, phases=[Phase.generate])


@pytest.mark.slow
@FEW
@given(slots=st.integers(1, 24), ratio=st.floats(3, 600), finishes=st.booleans())
def test_goodput_whatever_the_slots_and_the_time_limit(slots, ratio, finishes):
    server, count = Server(slots, 1.0, finishes=finishes), 80 * slots
    results, _ = run(server, prompts(count), timeout=ratio)
    assert results.done == count
    assert goodput(server, results, 80, FOUND if slots == 1 else 0) >= 0.8


@pytest.mark.slow
@FEW
@given(few=st.integers(2, 8), many=st.integers(8, 20))
def test_capacity_is_followed_both_ways(few, many):
    server = Server(many, 1.0)
    count = 60 * many + 100 * few + 60 * many
    changes = {60.0: lambda: server.change(few), 160.0: lambda: server.change(many)}
    results, _ = run(server, prompts(count), at=changes, timeout=20)
    assert goodput(server, results, 220) >= 0.85


def test_hundreds_at_once_that_take_long_are_fine():
    server = Server(seconds=30.0)
    results, _ = run(server, prompts(1500), timeout=600)
    assert server.most == 256
    assert goodput(server, results, 300) >= 1


@pytest.mark.slow
def test_an_engine_that_shares_itself_out_is_filled():
    """What a batch of n takes grows with n, and so does what it gets done: long answers are no queue."""
    server = Server()
    server.stretch = lambda: 100.0 + 0.8 * server.flight
    results, _ = run(server, prompts(3000), timeout=600)
    assert server.most == 256
    assert not results.failures


def test_a_request_that_timed_out_is_not_asked_again_while_the_server_is_at_work_on_it():
    server = Server(1, 30.0)
    results, _ = run(server, prompts(4), timeout=40, concurrency=4)
    assert (results.done, results.failures) == (4, [])
    assert server.worked_twice == 0


@pytest.mark.parametrize("concurrency", [None, 32])
@given(ratio=st.floats(6, 600), count=st.integers(5, 120))
@settings(max_examples=12, deadline=None, phases=[Phase.generate])
def test_one_slot_is_asked_for_no_more_than_it_answers_in_time(concurrency, ratio, count):
    server = Server(1, 1.0)
    results, _ = run(server, prompts(count), timeout=ratio, concurrency=concurrency)
    assert (results.done, server.posts) == (count, count)


def test_requests_that_always_time_out_fail_and_the_others_are_answered():
    server = Server(64, 1.0)
    server.stretch = lambda: 100.0 if server.posts % 50 == 0 else 1.0
    results, _ = run(server, prompts(500), timeout=20)
    assert results.done + len(results.failures) == 500
    assert results.done >= 495


HINTS = {
    "none": lambda wait: {},
    "seconds": lambda wait: {"retry-after": str(ceil(wait))},
    "milliseconds": lambda wait: {"retry-after-ms": str(wait * 1000)},
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize(
    ("a_second", "at_once", "count"),
    [
        (10, 10, 900),
        (5, 25, 600),
        pytest.param(50, 50, 3000, marks=SLOW),
    ],
)
def test_a_rate_that_refuses_what_exceeds_it_is_found_and_kept_to(a_second, at_once, count, hint):
    server = Server(seconds=0.5, refuse=Bucket(a_second, at_once, HINTS[hint]))
    results, _ = run(server, prompts(count))
    assert results.done == count
    assert (count - at_once) / a_second / (server.last - server.first) >= 0.9
    assert server.posts <= 1.25 * count


def test_one_burst_of_refusals_is_one_step():
    """Fifty refusals that were under way together once made a pause of a minute."""
    rate = AcceptedRate()
    numbers = [rate.send(0.001 * n) for n in range(50)]
    pauses = [rate.refuse(n, 0.001 * n, 0.1 + 0.001 * n) for n in numbers]
    assert [pause for pause in pauses if pause is not None] == [1.0]


def test_pauses_grow_while_nothing_is_let_through():
    rate = AcceptedRate()
    pauses = [rate.refuse(rate.send(100.0 * n), 100.0 * n, 100.0 * n + 1) for n in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0
