"""Deadlines as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memserve.errors import InvalidInput
from memserve.speed.workloads import seconds_of

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "hours"),
    [("12h", 12), ("90m", 1.5), ("3d", 72), ("1h30m", 1.5), ("7200", 2), ("1.5H", 1.5), ("18:30", 6.5),
     ("9:00", 21), ("tomorrow 9:00", 21), ("Tomorrow at 09:00", 21), ("today 13:00", 1), ("12:00", 24),
     ("2026-11-21 09:00", 21), ("30min", 0.5),
     ("2 hours 30 minutes", 2.5), ("1 day", 24), ("90 mins", 1.5),
     ("2026-11-21T09:00", 21), ("2026-11-21T09:00+01:00", 20)],
)  # fmt: skip
def test_spans_and_moments(word, hours):
    assert seconds_of(word, NOON) == hours * 3600


@pytest.mark.parametrize(
    "word",
    [
        "",
        "soon",
        "0h",
        "-3h",
        "25:00",
        "9:75",
        "today 9:00",
        "2020-01-01",
        "1e5",
        "9" * 40,
        "tomorrow",
        "3 months",
    ],
)
def test_what_is_no_time_ahead_is_refused(word):
    with pytest.raises(InvalidInput, match="deadline"):
        seconds_of(word, NOON)
