"""The sums that users quote, to the cent, and the input that is refused."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from memserve.errors import InvalidInput
from memserve.speed import cost


@pytest.mark.parametrize(("peak", "usd"), [(989, 0.9205), (1979, 0.4600), (3958, 0.2300)])
def test_cost_from_parameters_price_and_mfu(peak, usd):
    speed = cost.compute_tokens_per_s(active_parameters=100e9, cards=8, peak_tflops=peak, mfu=0.30)
    assert cost.gpu_usd_per_mtok(usd_per_hour=39.33, tokens_per_s=speed) == pytest.approx(usd, abs=5e-5)


def test_a_human_costs():
    assert cost.human_usd_per_mtok(usd_per_hour=16, tokens_per_minute=100) == pytest.approx(
        2666.67, abs=0.005
    )


def test_a_thousand_samples_cost():
    total = 1000 * 2500
    usd = cost.api_usd(total / 3, total * 2 / 3, usd_per_mtok_input=3, usd_per_mtok_output=15)
    assert usd == pytest.approx(27.50)


def test_counts_may_be_zero_or_fractional():
    assert cost.api_usd(0, 0, usd_per_mtok_input=3, usd_per_mtok_output=15) == 0
    assert cost.api_usd(0.5, 0, usd_per_mtok_input=3, usd_per_mtok_output=15) == 1.5e-6
    assert cost.compute_tokens_per_s(active_parameters=1e9, cards=0, peak_tflops=1, mfu=0.5) == 0
    assert cost.compute_tokens_per_s(active_parameters=1e9, cards=0.5, peak_tflops=4, mfu=0.5) == 500


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_impossible_rates_are_refused(bad):
    calls = [
        lambda: cost.api_usd(1, 1, usd_per_mtok_input=bad, usd_per_mtok_output=1),
        lambda: cost.api_usd(1, 1, usd_per_mtok_input=1, usd_per_mtok_output=bad),
        lambda: cost.gpu_usd_per_mtok(usd_per_hour=bad, tokens_per_s=1),
        lambda: cost.gpu_usd_per_mtok(usd_per_hour=1, tokens_per_s=bad),
        lambda: cost.human_usd_per_mtok(usd_per_hour=bad, tokens_per_minute=1),
        lambda: cost.human_usd_per_mtok(usd_per_hour=1, tokens_per_minute=bad),
        lambda: cost.compute_tokens_per_s(active_parameters=bad, cards=1, peak_tflops=1, mfu=0.3),
        lambda: cost.compute_tokens_per_s(active_parameters=1, cards=1, peak_tflops=bad, mfu=0.3),
        lambda: cost.compute_tokens_per_s(active_parameters=1, cards=1, peak_tflops=1, mfu=bad),
        lambda: cost.in_cny(1, cny_per_usd=bad),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="positive"):
            call()


def test_negative_counts_and_impossible_mfu_are_refused():
    with pytest.raises(ValueError, match="input_tokens"):
        cost.api_usd(-1, 0, usd_per_mtok_input=3, usd_per_mtok_output=15)
    with pytest.raises(ValueError, match="fraction"):
        cost.compute_tokens_per_s(active_parameters=1, cards=1, peak_tflops=1, mfu=30)


def test_owning_against_renting():
    hours = cost.rent_break_even_hours(purchase_usd=30_000, rent_usd_per_hour=3, watts=1000, usd_per_kwh=0.5)
    assert hours == pytest.approx(12_000)
    assert cost.rent_break_even_hours(purchase_usd=1, rent_usd_per_hour=1, watts=1000, usd_per_kwh=2) is None
    busy = cost.owned_usd_per_hour(purchase_usd=8760, years=1, busy_share=0.5, watts=500, usd_per_kwh=0.2)
    assert busy == pytest.approx(2.1)


def test_both_currencies_at_the_given_rate():
    assert cost.in_cny(2, cny_per_usd=7.1) == pytest.approx(14.2)


@pytest.mark.parametrize("bad", ["5", "x", None, [1], 1 + 2j, 10**400, 1e300])
def test_what_is_no_number_is_refused_by_name(bad):
    calls = {
        "input_tokens": lambda: cost.api_usd(bad, 1, usd_per_mtok_input=1, usd_per_mtok_output=1),
        "usd_per_mtok_output": lambda: cost.api_usd(1, 1, usd_per_mtok_input=1, usd_per_mtok_output=bad),
        "usd_per_hour": lambda: cost.gpu_usd_per_mtok(usd_per_hour=bad, tokens_per_s=1),
        "tokens_per_minute": lambda: cost.human_usd_per_mtok(usd_per_hour=1, tokens_per_minute=bad),
        "cards": lambda: cost.compute_tokens_per_s(active_parameters=1e9, cards=bad, peak_tflops=1, mfu=0.3),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidInput, match=name):
            call()


@pytest.mark.parametrize("part", ["communication", "compression", "cost", "prices", "workloads"])
def test_the_rooms_parts_are_reached_by_name_alone(part):
    """`memserve.speed.cost` in a new process, where nothing has imported it before."""
    code = f"import memserve; print(memserve.speed.{part}.__name__)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == f"memserve.speed.{part}"
