import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import parse


@pytest.mark.parametrize(
    ("spec", "nodes", "per_node", "name"),
    [
        ("V100", 1, 1, "V100-32GB"),
        ("4xV100", 1, 4, "V100-32GB"),
        (" 4 x v100-16gb ", 1, 4, "V100-16GB"),
        ("2x8xH100", 2, 8, "H100-80GB"),
        ("8x910B4", 1, 8, "910B4"),
        ("910B4", 1, 1, "910B4"),
        ("7900XTX", 1, 1, "RX7900XTX"),
        ("2x7900XTX", 1, 2, "RX7900XTX"),
        ("2x2x9070XT", 2, 2, "RX9070XT"),
        ("4X4090", 1, 4, "RTX4090"),
        ("4×A100", 1, 4, "A100-80GB"),
        ("4xNVIDIA A100-SXM4-40GB", 1, 4, "A100-40GB"),
        ("16xA3", 1, 16, "A3"),
        ("p4d.24xlarge", 1, 8, "A100-40GB"),
        ("2xp4d.24xlarge", 2, 8, "A100-40GB"),
        ("Standard_ND40rs_v2", 1, 8, "V100-32GB"),
        ("1xL4,1xL4", 1, 2, "L4"),
        ("1xA100-80GB-MIG-3g.40gb", 1, 1, "A100-80GB-MIG-3g.40gb"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 1, 1, "A100-80GB-MIG-1g.10gb"),
        ("c7i.4xlarge", 1, 1, "CPU"),
    ],
)
def test_specs(spec, nodes, per_node, name):
    machine = parse(spec)
    assert (machine.nodes, machine.cards_per_node, machine.card.name) == (nodes, per_node, name)
    assert (machine.network is not None) == (nodes > 1 and machine.card.network is not None)


def test_a_bare_name_says_what_it_means():
    assert parse("4xV100").notes == ("V100 means V100-32GB (say V100-16GB for the other)",)
    assert parse("A100").notes[0].startswith("A100 means A100-80GB")
    assert parse("4xV100-32GB").notes == ()


def test_an_instance_type_brings_its_price():
    machine = parse("2xp4d.24xlarge")
    assert machine.usd_per_hour == pytest.approx(2 * 21.957642)
    assert "2026-07-20" in machine.rent.date
    assert machine.origin == "p4d.24xlarge"


def test_cpu_is_the_machine_at_hand():
    machine = parse("cpu")
    assert machine.card.vendor == "cpu"
    assert machine.card.memory == machine.host_memory > 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "the machine's spec is empty"),
        ("   ", "the machine's spec is empty"),
        ("0xV100", "a count must be a whole number above 0, not 0"),
        ("-1xV100", "a count must be a whole number above 0, not -1"),
        ("1.5xV100", "not 1.5"),
        ("99999xV100", "more than 1024 nodes of 128 cards"),
        ("123456789012345678901234567890xV100", "more than"),
        ("4x", "names no card"),
        ("x", "unknown card 'x'"),
        ("4xV10", "unknown card 'V10': did you mean V100-16GB, V100-32GB?"),
        ("4xVé100", "unknown card"),
        ("٤xV100", "unknown card"),
        ("V100x4", "the count goes first: 4xV100"),
        ("2x2x2xV100", "3 counts"),
        ("1xL4,1xT4", "mixed cards"),
        ("4xV100\n4xT4", "not a machine's spec"),
        ("any", "no single machine"),
        ("4xcpu", "cpu takes no count"),
        ("2x2xp4d.24xlarge", "one count, the nodes"),
        ("p4d.24xlarg", "did you mean p4d.24xlarge"),
        ("pi2.32xlarge.8", "cannot be planned"),
        ("2xA100-MIG-3g.40gb", "one MIG slice"),
        ("H100-MIG-3g.90gb", "no H100-80GB has a slice of 90 GB"),
        ("a" * 5000, "not a machine's spec"),
    ],
)
def test_a_malformed_spec_is_told_in_one_line(spec, message):
    with pytest.raises(InvalidInput) as caught:
        parse(spec)
    told = str(caught.value)
    assert message in told
    assert "\n" not in told and len(told) <= 300


@given(st.text(max_size=60))
def test_any_text_is_a_machine_or_one_line(text):
    try:
        machine = parse(text)
    except InvalidInput as error:
        assert len(str(error)) <= 300 and "\n" not in str(error)
    else:
        assert machine.cards >= 1


@given(st.from_regex(r"([0-9]{1,3}[xX ]{0,2}){0,3}[A-Za-z0-9. -]{0,14}", fullmatch=True))
def test_any_near_spec_is_a_machine_or_one_line(text):
    try:
        parse(text)
    except (InvalidInput, UnknownName) as error:
        assert len(str(error)) <= 300


def test_a_remark_in_brackets_is_no_second_card():
    assert parse("2xAscend A3 die (Atlas 800I A3, 64 GB per die)").card.name == "A3"
    assert parse("8xNVIDIA A100 (40 GB, size inferred)").card.name == "A100-40GB"


@pytest.mark.parametrize(
    ("spec", "cards", "name"),
    [("4 V100", 4, "V100-32GB"), ("2L4", 2, "L4"), ("4x V100", 4, "V100-32GB"), ("8 910B4", 8, "910B4"),
     ("2 4090", 2, "RTX4090"), ("8H100-80GB", 8, "H100-80GB"), ("7900XTX", 1, "RX7900XTX"),
     ("2080Ti", 1, "RTX2080Ti"), ("910B4", 1, "910B4")],
)  # fmt: skip
def test_counts_without_a_sign(spec: str, cards: int, name: str) -> None:
    found = parse(spec)
    assert (found.cards, found.card.name) == (cards, name)


@pytest.mark.parametrize(("name", "devices"), [
    ("Atlas 300I Duo", 2), ("MI250X-128GB", 2), ("MI250X", 1), ("K80", 1), ("910C", 1), ("M2", 1),
    ("M3-Max", 1),
])  # fmt: skip
@pytest.mark.parametrize("count", [1, 4])
def test_a_name_that_leaves_something_open_says_what_is_taken(name: str, devices: int, count: int) -> None:
    machine = parse(f"{count}x{name}")
    assert machine.cards == count * devices
    assert f"{machine.card.nominal_gb:.0f} GB" in " ".join(machine.notes)
    assert not parse(f"{count}x310P").notes
