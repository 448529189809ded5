"""Limits of accounts and keys: what counts against them, and that nothing ever passes them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.allowances import (
    AHEAD_US,
    DAY_US,
    NO_LIMITS,
    PERIODS,
    SECOND_US,
    Allowance,
    Limits,
    began_us,
    date_of,
    limits_by_name,
    with_changes,
)
from farebox.core.errors import conflict, over_limit, too_many
from tests.gateway import Gateway, eventually
from tests.served.test_formats import ORDERS, error_type, order
from tools.postgres import Cluster

START_US = 1_790_000_000 * SECOND_US
MINUTE_US = 60 * SECOND_US


def of(**limits: Any) -> Allowance:
    return Allowance("key 1", 2, Limits(**limits))


# Rates


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5 * SECOND_US), st.integers(0, 30), st.integers(0, 30)), max_size=150),
)
def test_no_minute_has_more_than_its_limit(most: int, asked: list[tuple[int, int, int]]) -> None:
    """Orders that come at any moment, become at most so many tokens, and fewer in the end."""
    orders, tokens = of(requests_per_minute=most), of(tokens_per_minute=most)
    now_us = START_US
    begun: list[int] = []
    spent: list[tuple[int, int]] = []
    for wait_us, wanted, became in asked:
        now_us += wait_us
        if orders.refuse(now_us, 0) is None:
            orders = orders.began(now_us, 0)
            begun.append(now_us)
        if tokens.refuse(now_us, wanted) is None:
            tokens = tokens.began(now_us, wanted)
            spent.append((now_us, min(wanted, became)))
            tokens = tokens.corrected(now_us, min(wanted, became) - wanted)
    for since_us in begun:
        assert sum(since_us <= each < since_us + MINUTE_US for each in begun) <= most
    for since_us, _ in spent:
        assert sum(count for at_us, count in spent if since_us <= at_us < since_us + MINUTE_US) <= most


@given(st.integers(1, 10), st.lists(st.integers(0, 20 * SECOND_US), min_size=1, max_size=40))
def test_who_waits_as_long_as_told_is_let_through(most: int, waits: list[int]) -> None:
    allowance, now_us = of(requests_per_minute=most), START_US
    for wait_us in waits:
        now_us += wait_us
        if (exceeded := allowance.refuse(now_us, 0)) is not None:
            assert exceeded.remaining == 0
            assert now_us < exceeded.reset_us <= now_us + 61 * SECOND_US
            assert allowance.refuse(exceeded.reset_us - 1, 0) is not None
            now_us = exceeded.reset_us
        assert allowance.refuse(now_us, 0) is None
        allowance = allowance.began(now_us, 0)


def served_by_nodes(
    most: int, asked: list[tuple[int, int, int, int, int]]
) -> Iterator[tuple[Allowance, list[tuple[int, int]]]]:
    """Orders of so many tokens that come after a wait from a node whose clock is behind, last for some time and become
    another number of tokens. Yields after each end what is counted, and what should be: seconds and tokens."""
    allowance, now_us = of(tokens_per_minute=most), START_US
    counted: list[tuple[int, int]] = []
    ends: list[tuple[int, int, int, int]] = []
    for wait_us, behind_us, wanted, became, lasts_us in [*asked, (100 * SECOND_US, 0, most + 1, 0, 0)]:
        now_us += wait_us
        for end in sorted(end for end in ends if end[0] <= now_us):
            ends.remove(end)
            _, which, began, unused = end
            allowance = allowance.corrected(began, -unused)
            counted[which] = counted[which][0], counted[which][1] - unused
            yield allowance, counted
        began_us = now_us - behind_us
        if allowance.refuse(began_us, wanted) is None:
            allowance = allowance.began(began_us, wanted)
            ends.append((now_us + lasts_us, len(counted), began_us, max(0, wanted - became)))
            counted.append((allowance.minute[-1][0], wanted))


def orders_of_nodes(wait_us: int, behind_us: int, lasts_us: int) -> st.SearchStrategy[Any]:
    tokens = st.integers(0, 50)
    order = st.tuples(st.integers(0, wait_us), st.integers(0, behind_us), tokens, tokens, st.integers(0, lasts_us))
    return st.lists(order, max_size=60)


@given(st.integers(1, 2_000), orders_of_nodes(300_000, 10 * SECOND_US, 20 * SECOND_US))
def test_nodes_whose_clocks_differ_give_back_what_orders_did_not_use(most: int, asked: Any) -> None:
    for allowance, counted in served_by_nodes(most, asked):
        assert sum(tokens for _, _, tokens in allowance.minute) == sum(tokens for _, tokens in counted)


@given(st.integers(1, 200), orders_of_nodes(5 * SECOND_US, 20 * SECOND_US, 90 * SECOND_US))
def test_nodes_whose_clocks_differ_give_nothing_back_that_another_order_used(most: int, asked: Any) -> None:
    for allowance, counted in served_by_nodes(most, asked):
        for since, _, _ in allowance.minute:
            used = sum(tokens for second, tokens in counted if second >= since)
            assert used <= sum(tokens for second, _, tokens in allowance.minute if second >= since)


def test_an_order_that_has_left_the_minute_takes_no_others_tokens() -> None:
    allowance = of(tokens_per_minute=100).began(START_US, 60)
    for after in (70, 80):
        allowance = allowance.began(START_US + after * SECOND_US, 10)
    assert allowance.corrected(START_US, -60) == allowance
    assert allowance.corrected(START_US + 70 * SECOND_US, 5).tokens_available(START_US + 80 * SECOND_US) == 75


def test_a_minute_is_sixty_seconds_and_not_less() -> None:
    allowance = of(requests_per_minute=1).began(START_US + 900_000, 0)
    assert allowance.refuse(START_US + MINUTE_US + 100_000, 0), "59.2 s later"
    assert allowance.refuse(START_US + MINUTE_US + SECOND_US, 0) is None


def test_an_order_that_is_more_than_the_limit_is_never_let_through() -> None:
    exceeded = of(tokens_per_minute=100).refuse(START_US, 101)
    assert exceeded
    assert exceeded.never
    assert of(tokens_per_minute=100).refuse(START_US, 100) is None


def test_clocks_that_do_not_agree_let_nothing_pass() -> None:
    allowance = of(requests_per_minute=3)
    for now_us in (START_US, START_US + 30 * SECOND_US, START_US - 20 * SECOND_US):
        allowance = allowance.began(now_us, 0)
    assert allowance.refuse(START_US + 59 * SECOND_US, 0)
    assert len(allowance.minute) == 2, "what came from a clock behind counts with the latest"
    # A clock that was an hour ahead stands in nobody's way for that hour.
    ahead = of(requests_per_minute=1).began(START_US + AHEAD_US, 0)
    assert ahead.refuse(START_US, 0) is None


# Money


@pytest.mark.parametrize(
    ("period", "before", "after"),
    [
        ("day", "2026-11-24T23:59:59", "2026-11-25T00:00:00"),
        ("week", "2026-11-29T23:59:59", "2026-11-30T00:00:00"),
        ("month", "2026-11-30T23:59:59", "2026-12-01T00:00:00"),
        ("month", "2028-02-29T12:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_a_period_begins_anew(period: Any, before: str, after: str) -> None:
    at_us, then_us = _us(before), _us(after)
    allowance = of(**{f"{period}_nanos": 100}).charged(70, at_us)
    assert allowance.available_nanos(at_us) == (30, period)
    assert allowance.available_nanos(then_us - 1) == (30, period)
    assert allowance.available_nanos(then_us) == (100, period)
    assert began_us(period, then_us) == then_us
    assert allowance.charged(20, then_us).available_nanos(then_us) == (80, period)
    # Money that is set aside is set aside in any period, and no clock that is behind brings a period back.
    held = allowance.charged(20, then_us).held(50)
    assert held.available_nanos(then_us) == held.available_nanos(at_us) == (30, period)


@pytest.mark.parametrize(
    ("ended", "counts"),
    [
        ("2026-11-30T23:50:00", {"total": 30}),
        ("2026-12-05T23:50:00", {"month": 30, "total": 30}),
        ("2026-12-08T23:50:00", {"week": 30, "month": 30, "total": 30}),
        ("2026-12-09T00:00:00", {"day": 30, "week": 30, "month": 30, "total": 30}),
    ],
)
def test_a_fare_that_is_booked_late_counts_in_its_own_periods(ended: str, counts: dict[str, int]) -> None:
    now_us = _us("2026-12-09T09:10:00")
    allowance = of(day_nanos=100, total_nanos=1000).charged(20, now_us).charged(30, _us(ended), now_us)
    for period in PERIODS:
        assert allowance.spent_nanos(period, now_us) == 20 + counts.get(period, 0)


def test_a_total_never_begins_anew() -> None:
    allowance = of(total_nanos=100).charged(70, START_US)
    assert allowance.available_nanos(START_US + 4000 * DAY_US) == (30, "total")


def test_a_count_by_a_clock_far_ahead_is_taken_for_one_of_now() -> None:
    allowance = of(day_nanos=100).charged(70, START_US + 30 * DAY_US)
    assert allowance.available_nanos(START_US) == (30, "day")
    righted = allowance.charged(10, START_US)
    assert righted.available_nanos(START_US) == (20, "day")
    assert righted.available_nanos(START_US + DAY_US) == (100, "day")


def test_the_tightest_limit_counts() -> None:
    allowance = of(day_nanos=100, month_nanos=80, total_nanos=1_000).charged(30, START_US)
    assert allowance.available_nanos(START_US) == (50, "month")
    assert of(requests_per_minute=1).available_nanos(START_US) is None


def test_dates_are_the_calendars() -> None:
    assert [date_of(day) for day in (0, 11_016, 20_782)] == ["1970-01-01", "2000-02-29", "2026-11-25"]


# What may be set


def test_limits_are_set_and_lifted_one_by_one() -> None:
    limits = with_changes(
        NO_LIMITS, {"usd_per_day": "0.5", "requests_per_minute": "60", "models": "openai/*, sim/echo"}
    )
    assert limits == Limits(requests_per_minute=60, day_nanos=500_000_000, models=("openai/*", "sim/echo"))
    assert limits_by_name(limits)["usd_per_day"] == "0.5"
    assert with_changes(limits, {"usd_per_day": None, "models": None}) == Limits(requests_per_minute=60)
    assert with_changes(limits, {}) == limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("requests_per_minute", "0"),
        ("requests_per_minute", "-1"),
        ("tokens_per_minute", "1.5"),
        ("orders_at_once", "1000000001"),
        ("orders_at_once", "9" * 400),
        ("answer_tokens_max", "many"),
        ("usd_per_day", "-1"),
        ("usd_total", "1000000000"),
        ("usd_per_week", "0.0000000001"),
        ("usd_per_month", "NaN"),
        ("models", " , "),
        ("models", "x" * 201),
        ("requests_per_hour", "1"),
    ],
)
def test_what_is_no_limit_is_named(shared_gateway: Gateway, name: str, value: str) -> None:
    shared_gateway.cli("key", "list", "demo")
    done = shared_gateway.run("account", "limit", "demo", f"{name}={value}")
    assert done.returncode == 2
    assert f"{name}:" in done.stderr
    assert "Traceback" not in done.stderr
    assert shared_gateway.cli("account", "limit", "demo")["limits"]["models"] is None


# At the gateway


@pytest.fixture
def limited(shared_gateway: Gateway) -> Iterator["Limited"]:
    yield Limited(shared_gateway)
    shared_gateway.audit()


class Limited:
    """An account of one's own, with a key, at a gateway that others use, too."""

    def __init__(self, gateway: Gateway, prepaid: str = "5") -> None:
        self.gateway = gateway
        self.name = token_hex(6)
        self.key = gateway.new_key(self.name, "--plan", "paying", "--prepaid", prepaid)

    def limit(self, whose: str, *limits: str) -> dict[str, Any]:
        named = self.name if whose == "account" else self.key
        found: dict[str, Any] = self.gateway.cli(whose, "limit", named, *limits)
        return found


@pytest.mark.parametrize("whose", ["account", "key"])
def test_requests_a_minute(limited: Limited, whose: str) -> None:
    limited.limit(whose, "requests_per_minute=3")
    for path in ("/messages", "/responses", "/embeddings"):
        assert order(limited.gateway, path, limited.key).status == 200
    for path in ORDERS:
        shed = order(limited.gateway, path, limited.key)
        assert (shed.status, error_type(path, shed)) == (429, "rate_limit_exceeded")
        assert 1 <= int(shed.headers["retry-after"]) <= 60
        assert (shed.headers["x-ratelimit-limit"], shed.headers["x-ratelimit-remaining"]) == ("3", "0")
        metadata = shed.json["error"]["metadata"]
        assert metadata["headers"]["X-RateLimit-Reset"] == shed.headers["x-ratelimit-reset"]
        assert metadata["limit_source"] == f"{whose}_requests_per_minute"
        assert metadata["provider_name"] is None
    assert limited.limit(whose)["used"]["requests_per_minute"] == 3
    limited.limit(whose, "requests_per_minute=none")
    assert order(limited.gateway, "/messages", limited.key).status == 200


@pytest.mark.parametrize(
    ("wait_ms", "told"),
    [(0, 1), (1, 1), (1001, 2), (59_999, 60), (60_000, 60), (60_001, 60), (61_000, 60), (119_999, 60), (120_000, 120)],
)
def test_a_wait_is_told_so_that_clients_heed_it(wait_ms: int, told: int) -> None:
    """OpenAI's and Anthropic's ignore a `Retry-After` above 60, and repeat at once."""
    shed = over_limit("no", limit_source="key", most=1, remaining=0, reset_ms=7, wait_ms=wait_ms)
    assert shed.headers["retry-after"] == str(told)
    assert shed.headers["x-ratelimit-reset"] == "7"
    if wait_ms % 1000 == 0:
        for other in (too_many("no", wait_ms // 1000), conflict("no", wait_ms // 1000)):
            assert other.headers["retry-after"] == str(told)


def test_orders_at_once(limited: Limited) -> None:
    limited.limit("key", "orders_at_once=2")
    ask = {"x-openrouter-simulate": "first-token-ms=1500"}
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(order, limited.gateway, "/messages", limited.key, ask) for _ in range(2)]
        eventually(lambda: limited.limit("key")["used"]["orders_at_once"] == 2)
        shed = order(limited.gateway, "/responses", limited.key)
        assert (shed.status, shed.headers["retry-after"]) == (429, "1")
        assert [each.result().status for each in asking] == [200, 200]
    assert order(limited.gateway, "/responses", limited.key).status == 200
    assert limited.limit("key")["used"]["orders_at_once"] == 0


def test_tokens_a_minute_cap_the_answer_and_count_what_was_used(limited: Limited) -> None:
    limited.limit("account", "tokens_per_minute=400")
    answer = limited.gateway.chat(limited.key, "tokens=20")
    assert answer.status == 200
    cap = int(answer.headers["x-farebox-answer-cap"])
    assert 16 <= cap < 400
    usage = answer.json["usage"]
    assert limited.limit("account")["used"]["tokens_per_minute"] == usage["prompt_tokens"] + usage["completion_tokens"]
    statuses = {limited.gateway.chat(limited.key, "tokens=400").status for _ in range(4)}
    assert statuses == {200, 429}
    assert limited.limit("account")["used"]["tokens_per_minute"] <= 400
    # What would never be let through is not told to come back.
    huge = limited.gateway.chat(limited.key, messages=[{"role": "user", "content": "word " * 500}])
    assert huge.status == 413
    assert "400 tokens a minute" in huge.error["message"]


@pytest.mark.parametrize("name", ["usd_per_day", "usd_per_week", "usd_per_month", "usd_total"])
@pytest.mark.parametrize("whose", ["account", "key"])
def test_money_is_spent_up_to_the_limit_and_no_further(limited: Limited, whose: str, name: str) -> None:
    limited.limit(whose, f"{name}=0.001")
    statuses = [limited.gateway.chat(limited.key, "cost=0.0003", max_tokens=100).status for _ in range(6)]
    assert statuses == [200, 200, 200, 402, 402, 402] or statuses == [200, 200, 200, 200, 402, 402]
    refused = limited.gateway.chat(limited.key)
    assert refused.error["metadata"]["limit_source"] == f"{whose}_{name}".replace("usd_per_", "usd_")
    assert "limit" in refused.error["message"]
    spent = float(limited.limit(whose)["used"][name])
    assert 0.0009 <= spent <= 0.0012, "one fare may be above its hold, and is then the last"
    limited.limit(whose, f"{name}=1")
    assert limited.gateway.chat(limited.key).status == 200


def test_what_was_spent_before_a_limit_counts(limited: Limited) -> None:
    for _ in range(3):
        assert limited.gateway.chat(limited.key, "cost=0.01").status == 200
    assert limited.limit("key", "usd_per_day=0.03")["used"]["usd_per_day"] == "0.03"
    assert limited.gateway.chat(limited.key).status == 402
    assert limited.limit("key", "usd_per_day=0.04")["used"]["usd_total"] == "0.03"
    assert limited.gateway.chat(limited.key).status == 200


def test_models_and_answers_within_the_plan(limited: Limited) -> None:
    limited.limit("account", "models=sim/*", "answer_tokens_max=50")
    limited.limit("key", "models=sim/echo,openai/*", "answer_tokens_max=7")

    def sees() -> Any:
        bearer = {"authorization": f"Bearer {limited.key}"}
        return {each["id"] for each in limited.gateway.request("GET", "/api/v1/models", headers=bearer).json["data"]}

    eventually(lambda: sees() == {"sim/echo"}, 3)
    assert limited.gateway.chat(limited.key, "tokens=100").json["usage"]["completion_tokens"] == 7
    for model, whose in (("sim/penny", "the key's limits"), ("openai/gpt-4o-mini", "the account's limits")):
        refused = limited.gateway.chat(limited.key, model=model)
        assert (refused.status, refused.error["message"]) == (403, f"{whose} does not include the model `{model}`")


def test_a_key_that_has_expired_is_nobodys(shared_gateway: Gateway) -> None:
    name = token_hex(6)
    shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    with pytest.raises(AssertionError, match="must lie in the future"):
        shared_gateway.cli("key", "create", name, "--expires", "2020-01-01T00:00:00")
    made = shared_gateway.cli("key", "create", name, "--expires", "2099-01-01T00:00:00")
    assert made["expires"] == "2099-01-01T00:00:00.000Z"
    assert shared_gateway.chat(made["key"]).status == 200
    soon = datetime.fromtimestamp(int(time.time()) + 3, UTC).replace(tzinfo=None)
    short = shared_gateway.cli("key", "create", name, "--expires", soon.isoformat())["key"]
    assert shared_gateway.chat(short).status == 200
    eventually(lambda: shared_gateway.chat(short).status == 401, 5)
    assert "expired" in shared_gateway.chat(short).error["message"]


def test_a_disabled_key_can_be_enabled_again(limited: Limited) -> None:
    limited.gateway.cli("key", "disable", limited.key)
    eventually(lambda: limited.gateway.chat(limited.key).status == 401, 2)
    limited.gateway.cli("key", "enable", limited.key)
    eventually(lambda: limited.gateway.chat(limited.key).status == 200, 2)
    limited.gateway.cli("key", "revoke", limited.key)
    done = limited.gateway.run("key", "enable", limited.key)
    assert done.returncode == 1
    assert "for good" in done.stderr


# Over all nodes


def test_all_nodes_together_keep_to_a_limit(tmp_path: Path, postgres: Cluster) -> None:
    """Three nodes of two processes, and many more orders than any limit lets through."""
    books = postgres.new_books()
    with ExitStack() as stack:
        nodes = []
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            gateway = Gateway(tmp_path / name, "--workers", "2", FAREBOX_DATABASE_URL=books)
            nodes.append(stack.enter_context(gateway))

        def served(key: str) -> int:
            asked = [nodes[number % 3] for number in range(90)]
            with ThreadPoolExecutor(30) as pool:
                answers = list(pool.map(lambda node: node.chat(key, max_tokens=20), asked))
            assert {answer.status for answer in answers} <= {200, 402, 429}
            return sum(answer.status == 200 for answer in answers)

        by_rate = Limited(nodes[0])
        by_rate.limit("key", "requests_per_minute=40")
        assert served(by_rate.key) == 40
        by_money = Limited(nodes[1])
        by_money.limit("account", "usd_per_day=0.0003")
        assert served(by_money.key) <= 30
        while nodes[2].chat(by_money.key, max_tokens=20).status == 200:
            pass
        used = by_money.limit("account")["used"]
        assert 0.00028 <= float(used["usd_per_day"]) <= 0.0003
        nodes[0].audit()


def _us(moment: str) -> int:
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * SECOND_US
