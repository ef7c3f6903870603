"""A sample on hf is the one that the shared draw makes of the same logits, whoever is drawn beside."""

from __future__ import annotations

import numpy as np
import pytest
from extras import need

from memserve.protocol import Request
from memserve.tokens.drawing import choose, keys

torch = need("torch", "hf")
loop = need("memserve_hf.decoding.loop", "hf")
row_of = need("memserve_hf.decoding.row", "hf")

SETTINGS = [
    {"temperature": 1.0}, {"temperature": 1.3, "top_p": 0.9}, {"temperature": 0.7, "top_k": 40},
    {"temperature": 2.0, "min_p": 0.01}, {"temperature": 0.0}, {"temperature": 1.0, "top_p": 1.0, "top_k": 1},
    {"temperature": 1e-9},
]  # fmt: skip


def _row(request: Request, index: int):
    job = row_of.Job(request, [1], row_of.Settings.of(request, 4), lambda: None)
    return row_of.Row(job, keys(request, index), None, None)


@pytest.mark.parametrize("seed", range(20))
def test_samples_are_those_of_the_shared_draw_in_any_company(seed: int) -> None:
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 3, (len(SETTINGS), 5_000)).astype(np.float32)
    asked = [Request(prompt="x", seed=seed, **settings) for settings in SETTINGS]
    wanted = [choose(row, one, keys(one, i)) for i, (row, one) in enumerate(zip(logits, asked, strict=True))]
    together = loop.choose(torch.from_numpy(logits), [_row(one, i) for i, one in enumerate(asked)])
    noisy = logits + chance.uniform(-2e-5, 2e-5, logits.shape).astype(np.float32)
    alone = [
        loop.choose(torch.from_numpy(noisy[i : i + 1]), [_row(one, i)])[0] for i, one in enumerate(asked)
    ]
    assert together == wanted
    assert alone == wanted
