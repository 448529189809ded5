"""Money: events, fares, amounts."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.money import (
    COST_MAX_USD,
    add_exact,
    events_ceil,
    floor_units,
    format_usd,
    is_readable_cost,
    parse_usd,
)
from farebox.core.plans import BUILT_IN, Plan, event_price_nanos

costs = st.decimals(min_value=0, max_value=COST_MAX_USD, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("cost", "events", "paying", "free"),
    [
        ("0.00001212", 2, "0.00002", "0.0002"),
        ("0.0001", 10, "0.0001", "0.001"),
        ("0.001", 100, "0.001", "0.01"),
        ("0.01", 1000, "0.01", "0.1"),
        ("0", 0, "0", "0"),
        ("3E-7", 1, "0.00001", "0.0001"),
        ("7.1e-05", 8, "0.00008", "0.0008"),
        ("0.00001", 1, "0.00001", "0.0001"),
        ("1e-400", 1, "0.00001", "0.0001"),
        ("0.0000100000000000000000000000000000000000000001", 2, "0.00002", "0.0002"),
    ],
)
def test_the_fare_table(cost: str, events: int, paying: str, free: str) -> None:
    assert events_ceil(Decimal(cost)) == events
    assert format_usd(BUILT_IN["paying"].fare_nanos(Decimal(cost))) == paying
    assert format_usd(BUILT_IN["free"].fare_nanos(Decimal(cost))) == free


@given(costs)
def test_events_are_the_exact_cost_rounded_up_once(cost: Decimal) -> None:
    if is_readable_cost(cost):
        assert events_ceil(cost) == math.ceil(Fraction(cost) * 100_000)


@given(costs, costs)
def test_a_sum_of_costs_is_exact(one: Decimal, other: Decimal) -> None:
    if is_readable_cost(one) and is_readable_cost(other):
        assert Fraction(add_exact(one, other)) == Fraction(one) + Fraction(other)


@given(costs, st.decimals(min_value="1e-12", max_value=1, allow_nan=False))
def test_what_an_amount_covers_never_costs_more_than_it(amount: Decimal, price: Decimal) -> None:
    units = floor_units(amount, price) if amount / price < 10**20 else 0
    assert Fraction(price) * units <= Fraction(amount)


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-1", "-1e-9", "1000001", "1E+999999", "1e-401", "0." + "1" * 61])
def test_what_is_no_amount_is_not_readable(cost: str) -> None:
    assert not is_readable_cost(Decimal(cost))


@pytest.mark.parametrize("zero", ["0", "-0", "0.000", "0E-10"])
def test_a_reported_zero_is_a_zero(zero: str) -> None:
    assert is_readable_cost(Decimal(zero))
    assert events_ceil(Decimal(zero)) == 0


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_amounts_are_written_as_they_are_read(nanos: int) -> None:
    assert parse_usd(format_usd(nanos)) == nanos


@pytest.mark.parametrize("text", ["", "-1", "1.", ".", "1e3", "five", "0.0000000001", "1000000000", "1,5", "٣", "NaN"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|smallest|more than"):
        parse_usd(text)


@pytest.mark.parametrize("multiplier", ["0", "-1", "0.00001", "1.23456", "1001", "NaN"])
def test_a_multiplier_that_would_break_a_fare_into_pieces_is_refused(multiplier: str) -> None:
    with pytest.raises(ValueError, match="multiplier"):
        event_price_nanos(Decimal(multiplier))


def test_a_plan_of_ones_own_has_whole_fares() -> None:
    plan = Plan("resale", event_price_nanos(Decimal("1.25")), models=("openai/*", "sim/echo"))
    assert plan.fare_nanos(Decimal("0.00003")) == 37_500
    assert plan.allows("openai/gpt-4o-mini")
    assert not plan.allows("sim/echo-pro")
