"""How a hold moves, from each state by each verdict."""

from decimal import Decimal

import pytest

from farebox.core.books import Balance, HoldRow, HoldState, Settle, Settled, Transfer, settlement_id
from farebox.core.ledger import Page
from farebox.core.usage import Cost, Nothing, Unknown, Verdict

COST, NOTHING, UNKNOWN = Cost(Decimal("0.0001")), Nothing(), Unknown("it broke off")


@pytest.mark.parametrize(
    ("before", "verdict", "after"),
    [
        ("pending", COST, "posted"),
        ("pending", NOTHING, "voided"),
        ("pending", UNKNOWN, "open"),
        ("open", COST, "posted"),
        ("open", NOTHING, "voided"),
        ("open", UNKNOWN, "open"),
        *((ended, verdict, ended) for ended in ("posted", "voided") for verdict in (COST, NOTHING, UNKNOWN)),
    ],
)
def test_a_hold_moves_by_the_verdict_until_it_has_ended(before: HoldState, verdict: Verdict, after: HoldState) -> None:
    hold = HoldRow("h", 2, 1, "w", before, 100_000, "paying", 10_000, "a/b", streamed=False, created_us=1)
    ending = Transfer(settlement_id("h"), "void", 2, 1, 100_000, 2, "h")
    booked = {ending.id: ending} if before in ("posted", "voided") else {}
    page = Page({2: Balance(2, 10**9, 0, 100_000, 0)}, {"h": hold}, {}, booked)
    settled = page.decide(Settle(hold_id="h", verdict=verdict, created_us=3), "w")
    assert isinstance(settled, Settled)
    assert settled.state == after
    is_moved = before in ("pending", "open")
    assert [changed.state for changed in page.changed_holds.values()] == [after] * is_moved
    assert len(page.new_transfers) == (is_moved and after != "open")
