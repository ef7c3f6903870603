"""Open, use, close: nothing is left behind, and two engines live side by side."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from memserve.conformance.asking import answer, question
from memserve.errors import Closed


def _settled(baseline: int, seconds: float = 10.0) -> int:
    end = time.monotonic() + seconds
    while threading.active_count() > baseline and time.monotonic() < end:
        time.sleep(0.05)
    return threading.active_count()


def test_close_may_be_called_twice(target: Any, generator: Any) -> None:
    held = target.generator()
    held.close()
    held.close()


def test_use_after_close_is_refused(target: Any, generator: Any) -> None:
    held = target.generator()
    answer(held, "x", 2)
    held.close()
    with pytest.raises(Closed):
        answer(held, "x", 2)


def test_a_with_block_closes(target: Any, generator: Any) -> None:
    with target.generator() as held:
        assert answer(held, "x", 2).error is None
    with pytest.raises(Closed):
        held.generate(["x"], max_tokens=2)


def test_two_engines_live_side_by_side(target: Any, generator: Any) -> None:
    before = answer(generator, question(1), 6)
    with target.generator() as second:
        other = answer(second, question(1), 6)
        beside = answer(generator, question(1), 6)
    after = answer(generator, question(1), 6)
    assert after.error is None
    if generator.capabilities.deterministic:
        assert before.text == other.text == beside.text == after.text


def test_close_leaves_no_threads(target: Any, generator: Any) -> None:
    with target.generator() as warm:
        answer(warm, "x", 2)
    baseline = _settled(0, 0.2)
    for _ in range(2):
        with target.generator() as held:
            answer(held, ["x", "y"], 2)
    assert _settled(baseline) <= baseline


def test_an_embedder_closes(target: Any, embedder: Any) -> None:
    held = target.embedder()
    held.embed(["x"])
    held.close()
    held.close()
    with pytest.raises(Closed):
        held.embed(["x"])
