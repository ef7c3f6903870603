import pytest

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import instances, parse


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


def test_cheapest_way_to_rent():
    found = instances.cheapest(parse("8xH100"))
    assert found is not None
    assert (found[0].name, found[1]) == ("p5.48xlarge", 1)
    small = instances.cheapest(parse("1xV100-16GB"))
    assert small is not None and small[0].usd_per_hour == 3.06
    assert instances.cheapest(parse("8xRTX4090")) is None
    assert instances.cheapest(parse("64xH100")) is None
