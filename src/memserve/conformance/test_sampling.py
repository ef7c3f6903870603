"""What is drawn follows the distribution that temperature, top_k, top_p and min_p leave."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from memserve.conformance.asking import BROKEN, answer, heat, need, question, said

DRAWS = 24
TOLD = ("temperature", "logprobs", "deterministic")
"""What makes the distribution known beforehand; a service of many replicas has none of its own."""
_WIDEST_VOCABULARY = 300_000


@dataclass(frozen=True)
class Choice:
    """A prompt, and what the model may say first: tokens and log-probabilities, the likeliest first."""

    prompt: str
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]

    def share(self, temperature: float) -> tuple[float, float]:
        """The least and the most that the likeliest token can weigh at a temperature."""
        weights = [math.exp((x - self.logprobs[0]) / temperature) for x in self.logprobs]
        return 1 / (sum(weights) + _WIDEST_VOCABULARY * weights[-1]), 1 / sum(weights)


def _choices(generator: Any) -> list[Choice]:
    """Open questions first: those whose two likeliest tokens weigh least."""
    prompts = [question(n) for n in range(12)]
    told = answer(generator, prompts, 1, logprobs=min(20, generator.capabilities.logprobs))
    tops = [one.logprobs[0].top for one in told]
    found = [
        Choice(p, tuple(t for t, _ in top), tuple(x for _, x in top))
        for p, top in zip(prompts, tops, strict=True)
        if len(top) > 2 and len({token for token, _ in top[:3]}) == 3
    ]
    if not found:
        pytest.skip("capability logprobs: three rivals are needed to see what is drawn")
    return sorted(found, key=lambda one: math.exp(one.logprobs[0]) + math.exp(one.logprobs[1]))


def _draws(generator: Any, choice: Choice, **settings: Any) -> list[str]:
    """First tokens, as the engine spells them."""
    got = answer(generator, [choice.prompt] * DRAWS, 1, logprobs=0, **settings)
    return [one.logprobs[0].token for one in got]


def _of_two(generator: Any) -> Choice:
    """An open question whose third token is clearly less likely than its second."""
    clear = [one for one in _choices(generator) if one.logprobs[1] - one.logprobs[2] > 0.03]
    if not clear:
        pytest.skip("capability logprobs: no prompt has a clear second token")
    return clear[0]


def _within_two(generator: Any, **settings: Any) -> None:
    choice = _of_two(generator)
    drawn = _draws(generator, choice, temperature=1.0, **settings)
    assert set(drawn) <= set(choice.tokens[:2]), f"{settings} lets more than the two likeliest through"


def test_top_k_of_two_leaves_two(generator: Any, can: Any) -> None:
    need(can, "top_k", *TOLD)
    _within_two(generator, top_k=2)


def test_top_p_leaves_the_likeliest_that_reach_it(generator: Any, can: Any) -> None:
    need(can, "top_p", *TOLD)
    first, second = (math.exp(x) for x in _of_two(generator).logprobs[:2])
    _within_two(generator, top_p=first + second / 2)


def test_min_p_leaves_what_is_likely_enough(generator: Any, can: Any) -> None:
    need(can, "min_p", *TOLD)
    first, second, third = _of_two(generator).logprobs[:3]
    _within_two(generator, min_p=math.exp((second + third) / 2 - first))


def test_samples_are_filtered_too(generator: Any, can: Any) -> None:
    need(can, "top_p", "n", "max_tokens", *TOLD)
    choice, n = _of_two(generator), min(4, can.max_n or 4)
    if n < 2:
        pytest.skip("capability max_n: one sample only")
    first, second = (math.exp(x) for x in choice.logprobs[:2])
    for _ in range(4):
        got = answer(generator, choice.prompt, 1, n=n, temperature=1.0, top_p=first + second / 2)
        assert {said(sample).strip() for sample in got.samples} <= {t.strip() for t in choice.tokens[:2]}


def test_a_low_temperature_is_nearly_greedy(generator: Any, can: Any) -> None:
    need(can, *TOLD)
    for choice in _choices(generator):
        cool = [t for t in (0.5, 0.3, 0.2, 0.1, 0.05, 0.02) if choice.share(t)[0] > 0.98]
        if cool and math.exp(choice.logprobs[0]) < 0.7:
            drawn = _draws(generator, choice, temperature=cool[0])
            assert drawn.count(choice.tokens[0]) >= DRAWS * 3 // 4, f"temperature {cool[0]}"
            break
    else:
        pytest.skip("capability logprobs: no prompt is open enough to tell temperatures apart")


def test_a_middling_temperature_is_not_greedy(generator: Any, can: Any) -> None:
    need(can, *TOLD)
    for choice in _choices(generator):
        warm = [t for t in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9) if 0.05 < choice.share(t)[1] < 0.6]
        if warm:
            assert len(set(_draws(generator, choice, temperature=warm[0]))) > 1, f"temperature {warm[0]}"
            break
    else:
        pytest.skip("capability logprobs: no prompt is open enough to tell temperatures apart")


def test_answers_without_a_seed_vary(generator: Any, can: Any) -> None:
    need(can, "temperature")
    hot = {"temperature": heat(generator, 1.5)}
    one_by_one = {said(answer(generator, question(9), 12, **hot)) for _ in range(6)}
    assert len(one_by_one) > 1
    assert len({said(one) for one in answer(generator, [question(9)] * 6, 12, **hot)}) > 1


# ---------------------------------------------------------------------- determinism


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
