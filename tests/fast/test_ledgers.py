"""Ledgers: the names of their accounts, and how amounts are written."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core import beancount, hledger
from farebox.core.entries import Entry, Posting, amount_text, balanced, component, marked

NAMES = st.text(max_size=80) | st.from_regex(r"[a-z0-9.\-/]{1,8}(-[0-9a-f]{6})?", fullmatch=True)


@given(st.lists(NAMES, max_size=20, unique=True))
def test_names_stay_apart_and_are_parts_of_beancounts_accounts(names: list[str]) -> None:
    found = [component(name) for name in names]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Z0-9][A-Za-z0-9-]*", each) for each in found)
    assert found == [component(name) for name in names]


def test_a_name_that_loses_nothing_stays_as_it_is() -> None:
    assert component("acme-2") == "Acme-2"
    assert component("acme-3fa2b1").startswith("Acme-3fa2b1-")
    assert component("Acme") != component("acme")
    assert component("claude-3.5") != component("claude-3-5")
    assert marked("", "7") == "X-7"


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=20))
def test_an_amount_is_written_exactly_with_nine_decimals_or_more(amount: Decimal) -> None:
    text = amount_text(amount)
    assert Decimal(text) == amount
    assert len(text.partition(".")[2]) >= 9


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_begins_a_line_of_its_own(payee: str, narration: str) -> None:
    postings = balanced([Posting("Assets:A", Decimal(1)), Posting("Equity:B", Decimal(-1))])
    entry = Entry(20_000, payee, narration, postings, (("reason", narration),))
    assert len(beancount.written(entry).splitlines()) == 5
    assert len(hledger.written(entry).splitlines()) == 4
    first = hledger.written(entry).splitlines()[0]
    assert first.partition(" * ")[2][:1] not in ("*", "!", "(", "=")


def test_an_entry_that_does_not_come_to_nothing_is_none() -> None:
    with pytest.raises(AssertionError):
        balanced([Posting("Assets:A", Decimal(1)), Posting("Equity:B", Decimal("-1.000000001"))])
