"""Alerts: what is told when, what stands in it, and where it may not go."""

import base64

import pytest
from msgspec.structs import replace

from farebox.core.alerts import (
    KINDS,
    PAUSES_SECONDS,
    Low,
    Raised,
    Receiver,
    Trouble,
    after_attempt,
    decide,
    deliveries_of,
    failing_upstreams,
    limit_used,
    limits_used,
    low_balance,
    unresolved_orders,
)
from farebox.core.allowances import DAY_US, Allowance, Limits
from farebox.core.health import Standing
from farebox.core.webhooks import check_url, headers_of, is_public, shown

USD = 10**9
NOON = 20_000 * DAY_US + DAY_US // 2
MINUTE = 60_000_000


def told(raised: dict[str, Raised], troubles: list[Trouble], now_us: int) -> list[str]:
    """Look once, keep in `raised` what the books would, and say what is told."""
    changes = decide(raised, troubles, now_us)
    for trouble in changes.told:
        raised[trouble.name] = Raised(trouble.name, trouble.level, now_us, trouble.until_us)
    for noted in changes.noted:
        raised[noted.name] = noted
    for name in changes.over:
        del raised[name]
    return [trouble.kind for trouble in changes.told]


def test_a_low_balance_is_told_once_and_again_only_after_it_had_been_above() -> None:
    raised: dict[str, Raised] = {}
    low = low_balance(Low(7, "acme", 420_000_000, USD))
    assert [told(raised, [low], NOON + at * MINUTE) for at in range(3)] == [["low_balance"], [], []]
    assert told(raised, [low_balance(Low(7, "acme", -5, USD))], NOON + 3 * MINUTE) == []
    assert told(raised, [], NOON + 4 * MINUTE) == []
    assert raised == {}
    assert told(raised, [low], NOON + 5 * MINUTE) == ["low_balance"]
    assert low.said == "Account acme has $0.42 left, less than $1"
    assert low.facts == {"account": "acme", "left_usd": "0.42", "below_usd": "1"}


def used(spent: int, now_us: int, **limits: int) -> list[Trouble]:
    allowance = Allowance("key 3", 7, replace(Limits(), **limits), 0, spent, spent, spent, spent, now_us)
    return [limit_used(each, "acme", "laptop", now_us) for each in limits_used(allowance, now_us)]


def test_a_limit_is_told_at_80_percent_and_when_it_is_used_up_once_a_period() -> None:
    raised: dict[str, Raised] = {}
    looks = [
        (NOON, 3 * USD, []),
        (NOON + MINUTE, 4 * USD, ["limit_80"]),
        (NOON + 2 * MINUTE, 4 * USD, []),
        (NOON + 3 * MINUTE, 3 * USD, []),  # a fare was given back
        (NOON + 4 * MINUTE, 4 * USD, []),
        (NOON + 5 * MINUTE, 5 * USD - 1_000, ["limit_100"]),
        (NOON + 6 * MINUTE, 5 * USD, []),
        (NOON + DAY_US, 0, []),
        (NOON + DAY_US + MINUTE, 5 * USD, ["limit_100"]),  # from nothing to all of it between two looks
        (NOON + 2 * DAY_US, 4 * USD, ["limit_80"]),  # another day, no look in between
    ]
    for now_us, spent, expected in looks:
        assert told(raised, used(spent, now_us, day_nanos=5 * USD), now_us) == expected, now_us
    assert len(raised) == 1
    assert told(raised, used(4 * USD, NOON + 2 * DAY_US, day_nanos=4 * USD), NOON + 2 * DAY_US) == ["limit_100"]
    (trouble,) = used(4 * USD, NOON, month_nanos=5 * USD)
    assert trouble.said == "Key laptop of account acme has used 80% of its $5 a month: $4 spent"
    assert trouble.facts == {
        "account": "acme",
        "key": "laptop",
        "limit": "usd_per_month",
        "limit_usd": "5",
        "spent_usd": "4",
        "since": "2024-10-01",
    }
    assert used(79 * USD, NOON, total_nanos=100 * USD) == []


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("week", 7), ("month", 31)])
def test_a_limits_alert_stays_raised_to_the_end_of_its_period(period: str, days: int) -> None:
    (trouble,) = used(5 * USD, NOON, **{f"{period}_nanos": 5 * USD})
    assert NOON < trouble.until_us <= NOON + days * DAY_US
    assert trouble.until_us % DAY_US == 0


def test_more_unresolved_orders_are_told_when_there_are_twice_as_many() -> None:
    raised: dict[str, Raised] = {}
    numbers = [1, 1, 2, 3, 3, 4, 7, 8, 2, 5]
    assert [n for n in numbers if told(raised, [unresolved_orders(n)], NOON)] == [1, 2, 4, 8]


def test_what_may_pass_by_itself_is_told_when_it_has_not() -> None:
    raised: dict[str, Raised] = {}
    standings = [Standing("host", "", 3, NOON, "401", NOON), Standing("well", "", 0, 0, "", NOON)]
    (failing,) = failing_upstreams(standings, MINUTE - 1)
    assert failing.said == "Upstream host fails with all its models: 401"
    assert told(raised, [failing], NOON) == []
    assert told(raised, [], NOON + MINUTE) == []
    assert told(raised, [failing], NOON + 2 * MINUTE) == []
    assert told(raised, [failing], NOON + 3 * MINUTE) == ["failing_upstream"]
    assert told(raised, [failing], NOON + 4 * MINUTE) == []
    two = [Standing("host", model, 3, NOON, "refused", NOON) for model in ("b", "a")]
    assert failing_upstreams(two, 0)[0].facts["models"] == ["a", "b"]


def test_a_receiver_of_one_account_is_told_of_no_other() -> None:
    def receiver(number: int, kinds: tuple[str, ...], account_id: int | None, form: str = "webhook") -> Receiver:
        secret = None if form == "slack" else "whsec_"
        return Receiver(number, "", "", "slack" if form == "slack" else "webhook", secret, kinds, account_id, 0)

    receivers = [
        receiver(1, tuple(KINDS), None),
        receiver(2, tuple(KINDS), 7),
        receiver(3, tuple(KINDS), 8),
        receiver(4, ("limit_80",), None),
        receiver(5, tuple(KINDS), None, "slack"),
    ]
    troubles = [low_balance(Low(7, "<!channel> & co", 1, USD)), unresolved_orders(1)]
    sent = deliveries_of(troubles, receivers, iter("abcdefgh"), NOON, "then")
    assert [(name, delivery.receiver_id) for name, delivery in sent] == [
        ("low_balance 7", 1),
        ("low_balance 7", 2),
        ("low_balance 7", 5),
        ("unresolved_orders", 1),
        ("unresolved_orders", 5),
    ]
    assert "Account &lt;!channel&gt; &amp; co has" in sent[2][1].body
    assert sent[0][1].body.startswith('{"id":"a","type":"low_balance","timestamp":"then","message":')


def test_a_delivery_is_tried_for_a_day_with_growing_pauses_and_given_up() -> None:
    ((_, delivery),) = deliveries_of(
        [unresolved_orders(1)], [Receiver(1, "", "", "slack", None, tuple(KINDS), None, 0)], ["a"], NOON, ""
    )
    now_us, attempts = NOON, 0
    while delivery.due_us is not None:
        now_us, attempts = delivery.due_us, attempts + 1
        delivery = after_attempt(delivery, "it answered 500", now_us)
    assert (delivery.state, delivery.said, delivery.attempts) == ("given_up", "it answered 500", attempts)
    assert attempts == len(PAUSES_SECONDS) + 1
    assert list(PAUSES_SECONDS) == sorted(PAUSES_SECONDS)
    assert 23 < (now_us - NOON) / 3_600_000_000 < 25


def test_a_signature_is_that_of_the_standard_webhooks_specification() -> None:
    """The example of its reference libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", secret, 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert len(base64.b64decode(headers["webhook-signature"].removeprefix("v1,"))) == 32


OWN = """
127.0.0.1 127.8.8.8 10.1.1.1 172.16.0.1 192.168.1.1 100.64.0.1 100.100.100.200 169.254.169.254 192.0.0.192 168.63.129.16
0.0.0.0 224.0.0.1 255.255.255.255 240.0.0.1 198.18.0.1 192.0.2.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::127.0.0.1 ::ffff:0:10.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 100::1
"""
PUBLIC = "8.8.8.8 1.1.1.1 2606:4700:4700::1111 2a00:1450:4001::200e 64:ff9b::808:808 ::ffff:8.8.8.8"


def test_addresses_of_ones_own_network_are_known_in_each_form() -> None:
    assert [each for each in OWN.split() if is_public(each)] == []
    assert [each for each in PUBLIC.split() if not is_public(each)] == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://127.0.0.1/x", "within the gateway's own network"),
        ("https://[::ffff:169.254.169.254]/x", "within the gateway's own network"),
        ("https://[fe80::1%25eth0]/x", "own network"),
        ("http://example.com/x", "https alone"),
        ("ftp://example.com/x", "write a URL"),
        ("https:///x", "write a URL"),
        ("example.com/x", "write a URL"),
        ("https://me:pass@example.com/", "without a user"),
        ("https://example.com/#x", "a fragment"),
        ("https://example.com:99999/", "this is no URL"),
        ("https://example.com:0/", "write a URL"),
        ("https://example.com\\@127.0.0.1/", "ASCII characters"),
        ("https://exämple.com/", "ASCII characters"),
        ("https://example.com/\r\nx: y", "ASCII characters"),
        (f"https://example.com/{'x' * 2000}", "at most 2000"),
    ],
)
def test_a_url_that_cannot_be_a_receivers_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_url(url, may_be_private=False)


def test_of_a_url_its_host_is_shown_alone() -> None:
    assert shown("https://hooks.example.com:8443/services/T0/B0/s3cret?k=v") == "https://hooks.example.com:8443/..."
