import json
import os
from pathlib import Path

import pytest

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import Machine, card, cards, with_memory
from memserve.hardware.catalogue import key, knows, rows
from memserve.hardware.machine import GIB

SHARED = Path(os.environ.get("MEMSERVE_SHARED", Path(__file__).parents[3] / "shared"))
DTYPES = {"float32", "float16", "bfloat16", "float8", "int8", "float4"}


def test_every_row_is_whole():
    assert len(cards()) >= 63
    for one in cards():
        assert one.memory > 0 and one.driver_memory > 0 and one.bandwidth > 0, one.name
        assert one.memory <= one.driver_memory * 1.001, one.name
        assert set(one.flops) <= DTYPES and one.flops, one.name
        assert one.sources, one.name
        assert (one.capability is not None) == (one.vendor == "nvidia"), one.name


def test_names_are_unique_and_no_alias_points_at_two_cards():
    owners = {}
    for row in rows():
        for name in (row["name"], *row.get("aliases", ()), *row.get("default_for", ())):
            assert owners.setdefault(key(name), row["name"]) == row["name"], name
            assert card(name).name == row["name"], name


def test_derived_totals_follow_the_rule_of_their_vendor():
    for row in rows():
        if row["memory"] == "derived" and row["vendor"] == "nvidia":
            assert row["memory_mib"] == round(row["driver_mib"] * 0.9978 - 320), row["name"]
        if row["memory"] == "derived" and row["vendor"] == "ascend":
            assert row["memory_mib"] == round(row["driver_mib"] * 0.9525), row["name"]


def test_the_derived_rule_holds_on_measured_nvidia_cards():
    """Turing and newer; older drivers hide less, and Windows hides nothing."""
    errors = {}
    for row in rows():
        if row["memory"] == "measured" and row["vendor"] == "nvidia" and row["capability"] >= [7, 5]:
            derived = row["driver_mib"] * 0.9978 - 320
            errors[row["name"]] = abs(derived / row["memory_mib"] - 1)
    windows_or_unified = {"RTX4060", "RTX4080", "GB10"}
    worst = max(error for name, error in errors.items() if name not in windows_or_unified)
    assert worst < 0.015, errors


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v100", "V100-32GB"),
        ("V100-32G", "V100-32GB"),
        ("V100-16", "V100-16GB"),
        ("A100 40", "A100-40GB"),
        ("A100 80GB SXM", "A100-80GB"),
        ("a100-40gb-sxm4", "A100-40GB"),
        ("H100-80GB-PCIe", "H100-PCIe"),
        ("Spark", "GB10"),
        ("Atlas A2", "910B2"),
        ("V100-16GB", "V100-16GB"),
        ("A100", "A100-80GB"),
        ("a100-40gb", "A100-40GB"),
        ("H100", "H100-80GB"),
        ("H100-80GB", "H100-80GB"),
        ("RTX4090", "RTX4090"),
        ("RTX4090-24GB", "RTX4090"),
        ("910B2", "910B2"),
        ("910B4-1", "910B4-1"),
        ("910B4-64GB", "910B4-1"),
        ("A3", "A3"),
        ("GB10", "GB10"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("Tesla V100-PCIE-32GB", "V100-PCIe-32GB"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("Ascend910B2", "910B2"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX-PRO-6000-Workstation"),
        ("AMD Instinct MI325X", "MI325X"),
        ("NVIDIA H20-3e", "H20-3e"),
    ],
)
def test_a_card_is_found_by_the_names_people_and_engines_use(name, expected):
    assert card(name).name == expected


def test_totals_seen_in_logs():
    seen = {"T4": 14.56, "V100-32GB": 31.73, "A100-80GB": 79.15, "H100-80GB": 79.18, "H200": 139.8,
            "910B2": 60.96, "910B4": 29.5, "RTX5080": 15.47, "GH200": 95.0}  # fmt: skip
    for name, gib in seen.items():
        assert card(name).memory / GIB == pytest.approx(gib, abs=0.01), name


def test_unified_memory_cards_take_any_size():
    assert card("M1-Pro-32GB").memory / GIB == pytest.approx(21845 / 1024, abs=0.01)
    assert card("M2-24GB").memory / GIB == pytest.approx(16.0)
    assert card("M3-Max-64GB").nominal_gb == 64
    assert card("CPU-256GB").memory == 256 * GIB


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("V10", "unknown card 'V10': did you mean V100-16GB, V100-32GB?"),
        ("V100-64GB", "no V100 has 64 GB: did you mean V100-16GB, V100-32GB?"),
        ("RTX4091", "did you mean RTX4090"),
        ("banana", "unknown card 'banana': say for instance"),
        ("", "unknown card ''"),
    ],
)
def test_an_unknown_card_is_told_in_one_line(name, message):
    with pytest.raises(UnknownName) as caught:
        card(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


def test_memory_per_card_can_be_given():
    machine = with_memory(Machine(card("H100")), 78.5)
    assert machine.card.memory == round(78.5 * GIB)
    with pytest.raises(InvalidInput):
        with_memory(machine, 0)
    with pytest.raises(InvalidInput):
        with_memory(machine, float("nan"))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared facts are not beside this checkout")
def test_every_card_of_the_facts_and_logs_is_known():
    named = {row["card"] for row in json.loads((SHARED / "facts/hardware.json").read_text("utf-8"))["cards"]}
    for file in ("memory_public_logs.jsonl", "throughput.jsonl"):
        lines = (SHARED / "truth" / file).read_text("utf-8").splitlines()
        named |= {row["card"] for row in map(json.loads, lines) if row["card"]}
    unknown = [name for name in sorted(named) if not knows(name)]
    assert all(name.count("AMD Instinct") == 2 for name in unknown), unknown  # two kinds in one system
