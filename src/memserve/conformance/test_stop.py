"""Stop strings really cut, and are not part of the answer."""

from __future__ import annotations

from typing import Any

from memserve.conformance.asking import answer, long_answer, need, piece


def test_a_stop_string_cuts(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    got = answer(generator, prompt, 24, stop=[stop])
    assert got.text == free.text[: free.text.find(stop)]
    assert got.finish_reason == "stop"


def test_a_stop_string_may_lie_across_tokens(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator, least=8)
    for size in range(2, 7):
        stop = free.text[2 : 2 + size]
        got = answer(generator, prompt, 24, stop=[stop])
        assert got.text == free.text[: free.text.find(stop)], f"stop {stop!r}"


def test_the_first_stop_in_the_text_wins(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    if can.max_stop == 1:
        need(can, "max_stop")
    prompt, free = long_answer(generator, least=8)
    early, late = free.text[1:3], free.text[-3:]
    cut = min(free.text.find(early), free.text.find(late))
    assert answer(generator, prompt, 24, stop=[late, early]).text == free.text[:cut]


def test_a_stop_that_never_comes_changes_nothing(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    got = answer(generator, prompt, 24, stop=["\u2603 never said \u2603"])
    assert (got.text, got.finish_reason) == (free.text, free.finish_reason)


def test_a_stop_may_be_a_plain_string(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    assert answer(generator, prompt, 24, stop=stop).text == free.text[: free.text.find(stop)]


def test_the_end_of_an_answer_is_told(generator: Any, can: Any) -> None:
    need(can, "stop")
    prompt, free = long_answer(generator)
    assert free.finish_reason in {"stop", "length"}
    got = answer(generator, prompt, 24, stop=[piece(free.text)])
    assert got.finish_reason == "stop" or not can.deterministic
