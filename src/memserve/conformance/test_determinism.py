"""Greedy repeats itself, a seed repeats itself, and temperature does something."""

from typing import Any

from memserve.conformance.asking import BROKEN, answer, heat, need, question, said


def _hot(generator: Any, prompt: Any, **settings: Any) -> Any:
    return answer(generator, prompt, 12, temperature=heat(generator, 1.2), **settings)


def test_greedy_repeats(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    assert len({answer(generator, question(8), 12).text for _ in range(3)}) == 1


def test_the_default_is_greedy(generator: Any, can: Any) -> None:
    need(can, "deterministic", "temperature")
    prompt = question(8)
    assert answer(generator, prompt, 12).text == answer(generator, prompt, 12, temperature=0).text


def test_a_seed_repeats(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    assert len({_hot(generator, question(9), seed=42).text for _ in range(3)}) == 1


def test_a_seed_repeats_in_company(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    prompts = [question(1, 30), question(9), question(2)]
    alone = _hot(generator, prompts[1], seed=42).text
    assert _hot(generator, prompts, seed=42)[1].text == alone


def test_different_seeds_differ(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature")
    assert len({_hot(generator, question(9), seed=seed).text for seed in range(6)}) > 2


def test_a_seed_of_zero_is_a_seed(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    assert len({_hot(generator, question(9), seed=0).text for _ in range(3)}) == 1


def test_temperature_changes_answers(generator: Any, can: Any) -> None:
    need(can, "temperature")
    greedy = answer(generator, question(9), 12).text
    extra = [{"seed": n} if can.seed else {} for n in range(6)]
    hot = {said(answer(generator, question(9), 12, temperature=heat(generator), **more)) for more in extra}
    assert hot - {greedy}


def _mostly_greedy(generator: Any, **settings: Any) -> None:
    """Two tokens may be equally likely, and then either is right: rare only where few are asked for."""
    need(generator.capabilities, "max_tokens")
    prompts = [question(n) for n in range(8)]
    greedy, got = answer(generator, prompts, 4), [_hot(generator, prompt, **settings) for prompt in prompts]
    starts = [said(one).rstrip(BROKEN)[:12] for one in greedy]
    assert sum(said(one).startswith(start) for one, start in zip(got, starts, strict=True)) >= 5


def test_a_tiny_top_p_is_greedy(generator: Any, can: Any) -> None:
    need(can, "top_p", "temperature", "deterministic")
    _mostly_greedy(generator, top_p=1e-6)


def test_top_k_of_one_is_greedy(generator: Any, can: Any) -> None:
    need(can, "top_k", "temperature", "deterministic")
    _mostly_greedy(generator, top_k=1)


def test_a_min_p_of_one_is_greedy(generator: Any, can: Any) -> None:
    need(can, "min_p", "temperature", "deterministic")
    _mostly_greedy(generator, min_p=1.0)
