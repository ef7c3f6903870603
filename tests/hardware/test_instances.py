from itertools import product

import pytest

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import Machine, instances, parse


def test_every_row_names_a_card_and_prices_are_dated():
    assert len(instances.names()) > 80
    for name in instances.names():
        found = instances.find(name)
        assert found.cards >= 1, name
        if found.usd_per_hour is not None:
            assert found.usd_per_hour > 0 and found.date and found.source and found.region, name


def test_current_on_demand_price_beats_reserved_and_past_ones():
    found = instances.find("p5.48xlarge")
    assert (found.usd_per_hour, found.date) == (55.04, "2026-07-20")
    assert instances.find("p5e.48xlarge").usd_per_hour is None
    assert instances.find("standard_nc6s_V3").usd_per_hour == 3.06


def test_the_official_table_decides_a_disputed_flavor():
    found = instances.find("pi2.8xlarge.4")
    assert (found.card.name, found.cards) == ("T4", 4)


@pytest.mark.parametrize("name", ["pi2.32xlarge.8", "ai1s.8xlarge.4", "Standard_NC8ads_A10_v4"])
def test_what_no_table_confirms_is_refused(name):
    with pytest.raises(InvalidInput, match="cannot be planned"):
        instances.find(name)


def test_unknown():
    with pytest.raises(UnknownName, match=r"did you mean g6\.xlarge"):
        instances.find("g6.xlarg")


def test_the_price_is_of_the_cards_named():
    eight = instances.rent(parse("8xH100"))
    assert (eight.instance, eight.cards, eight.share, eight.usd_per_hour) == ("p5.48xlarge", 8, 1, 55.04)
    assert instances.rent(parse("1xV100-16GB")).usd_per_hour == 3.06
    one = instances.rent(parse("1xB200"))
    assert (one.instance, one.cards, one.share) == ("p6-b200.48xlarge", 8, 0.125)
    assert one.usd_per_hour == pytest.approx(113.9328 / 8)
    assert one.whole_usd_per_hour == pytest.approx(113.9328)
    for unsold in ("8xRTX4090", "64xH100"):
        assert instances.rent(parse(unsold)).usd_per_hour is None


def test_every_price_of_every_machine_adds_up():
    """Over all cards and counts: a share of one instance at its own price, of the exact size where sold."""
    sold = [found for found in map(instances.find, instances.names()) if found.card.vendor != "cpu"]
    cards = {found.card.name: found.card for found in sold}
    checked = 0
    for card, nodes, count in product(cards.values(), (1, 2), (1, 2, 3, 4, 8, 16)):
        rent = instances.rent(Machine(card, count, nodes))
        if rent.usd_per_hour is None:
            continue
        found = instances.find(str(rent.instance))
        assert rent.cards == found.cards * nodes and rent.share == pytest.approx(count / found.cards)
        assert rent.usd_per_hour == pytest.approx(found.usd_per_hour * nodes * rent.share, abs=1e-5)
        assert rent.region and rent.date and found.card == card
        exact = {one.cards for one in sold if one.card == card and one.usd_per_hour is not None}
        assert rent.share == 1 or count not in exact
        checked += 1
    assert checked > 100


@pytest.mark.parametrize("price", ["0", "12.5"])
def test_a_machine_of_ones_own_costs_what_is_said(price):
    rent = instances.rent(parse(f"1xRTX4090@{price}"))
    assert (rent.usd_per_hour, rent.instance, rent.share) == (float(price), None, 1)
    with pytest.raises(InvalidInput, match="not a price"):
        parse("1xRTX4090@-1")


def test_yuan_where_only_yuan_are_asked():
    rent = instances.rent(parse("1x910B2"))
    assert (rent.usd_per_hour, rent.cny_per_hour, rent.instance) == (None, 25.28, "pak3.4xlarge.8")


@pytest.mark.parametrize(
    ("name", "card", "cards"),
    [("a2-highgpu-4g", "A100-40GB", 4), ("a2-ultragpu-1g", "A100-80GB", 1), ("a3-highgpu-8g", "H100-80GB", 8),
     ("g2-standard-8", "L4", 1),
     ("n1-standard-8+1xT4", "T4", 1), ("n1-standard-8+2xV100-16GB", "V100-16GB", 2)],
)  # fmt: skip
def test_the_names_of_google_cloud(name, card, cards):
    machine = parse(name)
    assert (machine.card.name, machine.cards) == (card, cards)
    assert machine.host_memory and machine.usd_per_hour


def test_a_host_costs_with_the_cards_that_are_put_into_it():
    alone = parse("n1-standard-8").usd_per_hour
    assert parse("n1-standard-8+1xT4").usd_per_hour == pytest.approx(alone + 0.35)
    assert parse("n1-standard-8+2xV100-16GB").usd_per_hour == pytest.approx(alone + 2 * 2.48)
    assert parse("n1-standard-8+1xP100").usd_per_hour is None


def test_reserved_instances_have_a_price_of_their_own():
    machine = parse("2xp5.48xlarge@reserved")
    assert (machine.usd_per_hour, machine.cards) == (2 * 39.33, 16)
    assert "Capacity Blocks" in instances.rent(machine).source
    for unknown in ("g6.xlarge@reserved", "8xH100@reserved", "p5.48xlarge@spot"):
        with pytest.raises(InvalidInput, match=r"not a price|price of .* is listed"):
            parse(unknown)


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("t3.xlarge", 16),
        ("n1-standard-8", 30),
        ("c7.4xlarge.2", 32),
        ("c7.xlarge.4", 16),
        ("s7.2xlarge.2", 16),
    ],
)
def test_an_instance_without_cards_is_a_cpu(name, gib):
    machine = parse(name)
    assert machine.card.vendor == "cpu" and machine.card.memory == machine.host_memory == gib * 2**30


def test_the_processor_at_hand_is_no_rented_one():
    for here in ("cpu", "CPU-256GB"):
        assert instances.rent(parse(here)).usd_per_hour is None
    assert parse("t3.xlarge").usd_per_hour == 0.1664


def test_more_cores_read_faster():
    small, large = parse("t3.medium").card, parse("n1-standard-32").card
    assert small.bandwidth < large.bandwidth and small.flops["float32"] < large.flops["float32"]
