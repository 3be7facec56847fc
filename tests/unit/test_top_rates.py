"""Rates from totals: nothing is told that was not measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.cli.top.rates import NO_RATES, Meter, Odometers, draw_sparkline, tell_rate
from mtactl.control.types import Counts, Status


def reading(uptime: float, *, deferrals: int = 0, **totals: int) -> Status:
    return Status(
        node="mx1",
        version="1",
        uptime_seconds=uptime,
        health="ok",
        problems=(),
        totals=Counts(**totals),
        campaigns={},
        queue={},
        connections=0,
        in_flight_transactions=0,
        store_free_bytes=0,
        lanes=0,
        deferrals=deferrals,
    )


def test_rates_are_told_from_two_readings():
    """Broken: the first line of figures is a mean since the beginning of time."""
    meter = Meter()
    assert meter.take(reading(10, delivered=1000)) == NO_RATES
    rates = meter.take(reading(12, accepted=40, delivered=1300, deferrals=5, bounced=1))
    assert (rates.accepted, rates.delivered, rates.deferred, rates.bounced) == (20, 150, 2.5, 0.5)
    assert meter.history("delivered") == [150]


def test_a_restart_makes_no_peak():
    """Broken: after a restart the screen shows thousands a second that never were, or a negative rate."""
    meter = Meter()
    meter.take(reading(1000, delivered=5000, deferrals=900))
    assert meter.take(reading(2, delivered=5100, deferrals=3)) == NO_RATES
    assert meter.take(reading(3, delivered=5110, deferrals=3)).delivered == 10
    assert meter.history("delivered") == [None, 10]


def test_an_outage_is_a_gap():
    """Broken: what was delivered while no one looked is told as if it were the rate of now."""
    meter = Meter()
    meter.take(reading(10, delivered=0))
    meter.lose()
    assert meter.take(reading(100, delivered=9000)) == NO_RATES
    assert meter.take(reading(101, delivered=9001)).delivered == 1
    assert meter.history("delivered") == [None, 1]


def test_one_that_was_not_there_before_has_no_rate():
    """Broken: a campaign that comes onto the screen shows all that it ever delivered as its rate."""
    odometers = Odometers()
    assert odometers.take({"a": 5}, 1.0) == {}
    assert odometers.take({"a": 25, "b": 1000}, 3.0) == {"a": 10.0}
    assert odometers.take({"a": 20, "b": 1001}, 4.0) == {"b": 1.0}
    odometers.lose()
    assert odometers.take({"a": 30, "b": 1002}, 5.0) == {}


@pytest.mark.parametrize(
    ("rate", "told"), [(None, "-"), (0.0, "0/s"), (0.04, "0.0/s"), (9.94, "9.9/s"), (9.96, "10/s"), (4512.4, "4,512/s")]
)
def test_rates_in_words(rate, told):
    """Broken: a rate that is not known is taken for none."""
    assert tell_rate(rate) == told


@given(
    values=st.lists(st.none() | st.floats(0, 1e9), max_size=30),
    width=st.integers(0, 20),
    signs=st.sampled_from(["▁▂▃▄▅▆▇█", "_#"]),
)
def test_a_sparkline_is_as_wide_as_it_should_be(values, width, signs):
    """Broken: the line wraps, what is little looks like nothing, or an outage looks like no mail."""
    top = max((value for value in values if value is not None), default=0.0)
    line = draw_sparkline(values, width, top=top, signs=signs)
    assert len(line) == width
    shown = values[-width:] if width else []
    for value, sign in zip(shown, line[width - len(shown) :], strict=True):
        assert (sign == " ") == (value is None)
        if value is not None:
            assert (sign == signs[0]) == (value == 0)
            assert value < top or value == 0 or sign == signs[-1]
