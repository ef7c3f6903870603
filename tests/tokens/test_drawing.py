"""A sample follows the chances, and the rounding of its logits does not change it."""

from __future__ import annotations

import numpy as np
import pytest

from memserve.protocol import Request
from memserve.tokens.drawing import choose, keys

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))


def shares(**settings: float) -> np.ndarray:
    """How often each of four tokens came in 4,000 draws."""
    request, random = Request(prompt="x", **settings), keys(Request(prompt="x", seed=1), 0)
    drawn = [choose(LOGITS, request, random) for _ in range(4000)]
    return np.bincount(drawn, minlength=4) / len(drawn)


@pytest.mark.parametrize(
    ("settings", "chances"),
    [
        ({"temperature": 1.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 1.0, "top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.8}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"temperature": 1.0, "min_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.0}, [1, 0, 0, 0]),
        ({"temperature": 1e-9}, [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_the_settings_say(settings, chances) -> None:
    found = shares(**settings)
    assert np.abs(found - chances).max() < 0.03
    assert not found[np.array(chances) == 0].any()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.95}, {"top_k": 5000}, {"min_p": 1e-4}])
def test_rounding_does_not_change_a_sample(settings) -> None:
    """With many unlikely tokens, as at a high temperature; neighbours move a logit by 5e-5."""
    chance = np.random.default_rng(7)
    request, differ = Request(prompt="x", temperature=1.2, **settings), 0
    for seed in range(100):
        logits = chance.normal(0, 2, 20_000).astype(np.float32)
        noisy = logits + chance.uniform(-5e-5, 5e-5, len(logits)).astype(np.float32)
        one, other = (
            choose(row, request, keys(Request(prompt="x", seed=seed), 0)) for row in (logits, noisy)
        )
        differ += one != other
    assert differ <= 1
