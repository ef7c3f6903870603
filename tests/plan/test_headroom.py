"""`--headroom`: a share of each card stays free, whatever the engine."""

import random
from contextlib import suppress

import pytest

from memserve.errors import DoesNotFit, InvalidInput
from memserve.plan import best, models
from memserve.plan.query import share_of

MODELS = ("qwen3-8b", "llama-8b", "qwen3-32b", "BAAI/bge-m3", "llama-70b", "HuggingFaceTB/SmolLM2-135M")


def planned(seed):
    """A share, and the plans of a drawn question that keep it; none where nothing fits."""
    draw = random.Random(seed)
    model, gpus = draw.choice(MODELS), draw.choice(["1xL4", "2xA100", "4xV100", "1xRTX4090", "8x910B4"])
    share = draw.choice([0.05, 0.1, 0.25, 0.5])
    options = {"backend": backend} if (backend := draw.choice([None, "hf", "llamacpp"])) else {}
    with suppress(DoesNotFit):
        found = best(model, gpus, headroom=share, **options)
        return share, [plan for plan in (found, *found.alternatives) if plan.footprint]
    return share, []


def test_the_share_is_free():
    questions = [planned(seed) for seed in range(40)]
    assert sum(bool(plans) for _, plans in questions) >= 20
    for share, plans in questions:
        for plan in plans:
            assert plan.fits and plan.footprint.free >= share * plan.machine.card.memory * 0.999
            told = {one["name"]: one["value"] for one in plan.to_dict()["assumptions"]}
            given = plan.deployment.utilization
            assert given is None or told.get("gpu_memory_utilization", given) == given


def test_what_needs_the_whole_card_does_not_fit():
    assert best("qwen3-8b", "1xL4", quantization="none").fits
    with pytest.raises(DoesNotFit):
        best("qwen3-8b", "1xL4", quantization="none", headroom="50%")


@pytest.mark.slow
def test_lists_keep_it_too():
    all_of_it, half = (len(models("1xT4", task="embed", headroom=share).plans) for share in (None, "90%"))
    assert half < all_of_it


def test_shares_as_people_write_them():
    assert share_of("10%") == share_of(0.1) == share_of("0.1") == 0.1
    for word in ("120%", "-1", "much", 1):
        with pytest.raises(InvalidInput, match="headroom"):
            share_of(word)
