"""Stop strings really cut, and are not part of the answer."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from memserve.conformance.asking import BROKEN, answer, common, heat, long_answer, need, piece, question, said


def test_a_stop_string_cuts(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    got = answer(generator, prompt, 24, stop=[stop])
    assert said(got) == free.text[: free.text.find(stop)]
    assert got.finish_reason == "stop"


def test_a_stop_string_may_lie_across_tokens(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator, least=8)
    for size in range(2, 7):
        stop = free.text[2 : 2 + size]
        got = answer(generator, prompt, 24, stop=[stop])
        assert said(got) == free.text[: free.text.find(stop)], f"stop {stop!r}"


def test_the_first_stop_in_the_text_wins(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    if can.max_stop == 1:
        pytest.skip("capability max_stop: one at a time")
    prompt, free = long_answer(generator, least=8)
    early, late = free.text[1:3], free.text[-3:]
    cut = min(free.text.find(early), free.text.find(late))
    for stops in ([late, early], [early, late]):
        assert answer(generator, prompt, 24, stop=stops).text == free.text[:cut]


def test_every_stop_of_a_list_is_heard(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    if can.max_stop == 1:
        pytest.skip("capability max_stop: one at a time")
    prompt, free = long_answer(generator)
    never = ["\u2603 one", "\u2603 two", "\u2603 three"][: (can.max_stop or 4) - 1]
    stop = piece(free.text)
    for stops in ([stop, *never], [*never, stop]):
        assert answer(generator, prompt, 24, stop=stops).text == free.text[: free.text.find(stop)]


def test_a_stop_keeps_the_space_before_it(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    at, number, free = next(_word_ends(generator), (0, 0, ""))
    if not at:
        pytest.skip("capability stop: no answer of this model has a word that stands in it once")
    assert answer(generator, question(number), 24, stop=[free[at : at + 4]]).text == free[:at]


def _word_ends(generator: Any) -> Iterator[tuple[int, int, str]]:
    """Where in an answer a word begins that stands in it once, which answer, and the answer."""
    for number in range(12):
        free = said(answer(generator, question(number), 24))
        spaces = [at for at in range(2, len(free)) if free[at - 1].isspace() and not free[at].isspace()]
        for at in spaces[:2]:
            if free.find(free[at : at + 4]) == at and BROKEN not in free[: at + 4]:
                yield at, number, free


def test_stops_are_compared_letter_by_letter(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    other_case = piece(said(free)).swapcase()
    for stop in (".", "^", "[a-z]", "\\w+", other_case):
        expected = said(free).partition(stop)[0]
        assert said(answer(generator, prompt, 24, stop=[stop])) == expected, f"stop {stop!r}"


def test_a_stop_in_the_prompt_is_no_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    asked = next((word for word in prompt.split() if word not in said(free)), None)
    if asked:
        assert answer(generator, prompt, 24, stop=[asked]).text == free.text


def test_a_stop_at_the_limit_is_a_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic", "max_tokens")
    number, limit, text = next(_own_ends(generator), (0, 0, ""))
    if not text:
        pytest.skip("capability stop: no answer of this model ends with letters that stand in it once")
    got = answer(generator, question(number), limit, stop=[text[-3:]])
    assert (said(got), got.finish_reason) == (text[:-3], "stop")


def _own_ends(generator: Any) -> Iterator[tuple[int, int, str]]:
    """Answers, with their question and limit, whose last three letters stand in them once."""
    for number, limit in product(range(6), (5, 8, 11)):
        text = said(answer(generator, question(number), limit))
        stop = text[-3:]
        plain = len(stop) == 3 and stop.strip() == stop and BROKEN not in stop
        if plain and text.find(stop) == len(text) - 3:
            yield number, limit, text


def test_stops_cut_what_is_sampled(generator: Any, can: Any) -> None:
    need(can, "stop", "temperature")
    hot = {"temperature": heat(generator, 1.1)}
    prompts = [question(n) for n in range(4)]
    stop = common([said(one) for one in answer(generator, prompts, 24, **hot)])
    got = answer(generator, prompts, 24, stop=[stop], **hot)
    got += [answer(generator, prompt, 24, stop=[stop], **hot) for prompt in prompts]
    assert all(stop not in said(one) for one in got)


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
