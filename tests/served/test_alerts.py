"""Alerts, told to a receiver over HTTP: once, whoever looks and whatever dies; retried; and to no address within one's
own network."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from msgspec.structs import replace

from farebox.accounts import BadTerms
from farebox.alerting import CLAIM_US, Alerting
from farebox.alerts import ACCOUNT_RECEIVERS_MAX, RECEIVERS_MAX, Alerts
from farebox.background import Task
from farebox.core.alerts import PAUSES_SECONDS, Delivery, Receiver
from farebox.core.allowances import NO_LIMITS, Limits
from farebox.core.books import PlaceHold, Settle, TopUp
from farebox.core.health import Standing
from farebox.core.usage import Unknown
from farebox.crash import CRASH_VARIABLE
from farebox.store.books import SqlStore
from farebox.store.prepare import engine_of
from farebox.troubles import Troubles
from farebox.webhooks import SafeWebhooks
from tests.books import new_books
from tests.forward_proxies import ForwardProxy, behind_tls, private_authority
from tests.gateway import Gateway, eventually
from tests.hooks import HookReceiver, verified
from tests.served.test_management import Manager
from tests.served.test_store import set_limits
from tools.postgres import Cluster

START_US = 1_900_000_000_000_000
USD = 10**9


@pytest.fixture
def hooks() -> Iterator[HookReceiver]:
    with HookReceiver().serving() as receiver:
        yield receiver


class Node:
    """One of the processes on the same books; `now_us` is its clock."""

    def __init__(self, store: SqlStore, attempt_seconds: float = 5, *, may_be_private: bool = True) -> None:
        self.store = store
        self.now_us = START_US
        self.failing: list[Task] = []
        self.stale: tuple[bool, str | None] = (False, None)
        self.outcomes: list[str] = []
        webhooks = SafeWebhooks(None, may_be_private=may_be_private, attempt_seconds=attempt_seconds)
        self.alerts = Alerts(store, webhooks, may_be_private=may_be_private)
        troubles = Troubles(store, lambda: self.failing, lambda: self.stale, 180_000_000, lambda: self.now_us)
        self.alerting = Alerting(store, troubles, webhooks, 60, self.outcomes.append, lambda: self.now_us)

    async def look(self) -> None:
        """A minute later."""
        self.now_us += 60_000_000
        await self.alerting.look()

    async def tell(self) -> None:
        await self.look()
        await self.alerting.deliver_due()

    async def deliveries(self) -> list[Delivery]:
        return await self.store.deliveries(None, None, 100, "")

    async def account(self, paid_in: int) -> int:
        account = await self.store.create_account(token_hex(6), "paying", 0, START_US)
        await self.pay(account.id, paid_in)
        return account.id

    async def pay(self, account_id: int, nanos: int) -> None:
        await self.store.carry_out(TopUp(token_hex(12), account_id, nanos, START_US, None))


@asynccontextmanager
async def nodes(url: str, number: int = 1, **more: Any) -> AsyncIterator[list[Node]]:
    stores = [await SqlStore.open(engine_of(url), f"worker-{token_hex(4)}") for _ in range(number)]
    try:
        yield [Node(store, **more) for store in stores]
    finally:
        for store in stores:
            await store.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    new_books(tmp_path / "books.db")
    return f"sqlite:///{tmp_path}/books.db"


def test_a_low_balance_is_told_once_signed_and_again_after_it_had_been_above(url: str, hooks: HookReceiver) -> None:
    async def run() -> Receiver:
        async with nodes(url) as (node,):
            made = await node.alerts.add(hooks.url, "ops")
            account_id = await node.account(USD // 2)
            await node.account(5 * USD)
            for _ in range(3):
                await node.tell()
            await node.pay(account_id, USD)
            await node.tell()
            await node.alerts.set_low_balance(account_id, 2 * USD)
            await node.tell()
            await node.alerts.set_low_balance(account_id, 0)
            await node.tell()
            await node.alerts.set_low_balance(account_id, None)
            await node.tell()
            assert node.outcomes == ["delivered"] * 2
            return made

    made = asyncio.run(run())
    assert hooks.kinds == ["low_balance", "low_balance"]
    assert [hook.json["data"]["below_usd"] for hook in hooks.got] == ["1", "2"]
    assert len(set(hooks.ids)) == 2
    assert made.secret is not None
    for hook in hooks.got:
        assert hook.headers["webhook-id"] == hook.json["id"]
        assert hook.headers["content-type"] == "application/json"
        assert verified(hook, made.secret)
        assert not verified(hook, "whsec_AAAA")


def test_the_receivers_of_one_account_take_nobody_elses_place(url: str) -> None:
    async def run() -> None:
        async with nodes(url) as (node,):
            one, other = await node.account(USD), await node.account(USD)
            for _ in range(ACCOUNT_RECEIVERS_MAX):
                await node.alerts.add("http://127.0.0.1/", account_id=one)
            with pytest.raises(BadTerms, match="10 receivers of this account"):
                await node.alerts.add("http://127.0.0.1/", account_id=one)
            await node.alerts.add("http://127.0.0.1/", account_id=other)
            for _ in range(RECEIVERS_MAX):
                await node.alerts.add("http://127.0.0.1/")
            with pytest.raises(BadTerms, match="100 receivers already"):
                await node.alerts.add("http://127.0.0.1/")

    asyncio.run(run())


def test_each_kind_of_trouble_is_found_in_the_books(url: str, hooks: HookReceiver) -> None:
    async def run() -> None:
        async with nodes(url) as (node,):
            await node.alerts.add(hooks.url)
            store = node.store
            account_id = await node.account(5 * USD)
            key = await store.create_key(account_id, "laptop", token_hex(16).encode(), "sk-fb-a...b", START_US)
            await set_limits(store, account_id, None, Limits(requests_per_minute=1), START_US)
            await store.put_standing(Standing("host", "a/b", 3, START_US, "timed out", START_US))
            await set_limits(store, account_id, key.id, NO_LIMITS, START_US)
            placed = PlaceHold(
                id="h",
                account_id=account_id,
                key_id=key.id,
                wanted_nanos=1,
                least_nanos=1,
                plan="paying",
                event_price_nanos=1,
                model="a/b",
                streamed=False,
                created_us=START_US,
            )
            await store.carry_out(placed)
            await store.carry_out(Settle(hold_id="h", verdict=Unknown("it broke off"), created_us=START_US))
            await set_limits(store, account_id, key.id, Limits(total_nanos=0), START_US)
            node.failing = [Task("prices", store.forget_all_raised, "no prices")]
            node.stale = (True, "nobody answers")
            await node.tell()
            assert sorted(hooks.kinds) == ["limit_100", "unresolved_orders"]
            node.failing, before = [], node.failing
            await node.tell()
            assert sorted(hooks.kinds) == ["failing_upstream", "limit_100", "stale_prices", "unresolved_orders"]
            node.failing = before
            await node.tell()
            assert hooks.kinds.count("failing_task") == 1, "it was begun again at one look, and fails all the same"
            node.failing, node.stale = [], (False, None)
            for _ in range(5):
                await node.tell()
            assert set(await store.raised()) == {
                "failing_upstream host",
                "unresolved_orders",
                f"limit key {key.id} total 1970-01-01 0",
            }
            await set_limits(store, account_id, key.id, NO_LIMITS, START_US)
            await node.tell()
            assert set(await store.raised()) == {"failing_upstream host", "unresolved_orders"}

    asyncio.run(run())
    texts = [hook.json["message"] for hook in hooks.got]
    assert "The task prices failed and has not begun again: no prices" in texts
    assert "Prices are stale: nobody answers" in texts
    assert "Upstream host fails with a/b: timed out" in texts
    assert any(text.startswith("Key laptop of account") for text in texts)


def test_what_fails_is_tried_again_under_the_same_id(url: str, hooks: HookReceiver) -> None:
    async def run() -> None:
        async with nodes(url) as (node,):
            impatient = Node(node.store, attempt_seconds=1)
            made = await node.alerts.add(hooks.url)
            await node.account(1)
            hooks.answers[:] = [500, "hangs", 302, 204]
            hooks.leads_to = "/elsewhere"
            problems = []
            await node.look()
            for pause in (0, *PAUSES_SECONDS[:3]):
                node.now_us += pause * 1_000_000
                if pause:
                    node.now_us -= 1_000
                    assert await node.alerting.deliver_due() == 0
                    node.now_us += 1_000
                impatient.now_us = node.now_us
                trying = impatient if hooks.answers[0] == "hangs" else node
                assert await trying.alerting.deliver_due() == 1
                problems += [each.said for each in await node.deliveries()]
            assert problems[:2] == ["it answered 500", "no answer within 1 s"]
            assert problems[2].startswith("it answered 302, and redirects are not followed")
            assert problems[3] == ""
            assert [hook.path for hook in hooks.got] == ["/hooks/s3cret-path"] * 4
            assert len(set(hooks.ids)) == 1
            assert made.secret is not None
            assert all(verified(hook, made.secret) for hook in hooks.got)
            assert (node.outcomes, impatient.outcomes) == (["failed", "failed", "delivered"], ["failed"])

    asyncio.run(run())


def test_what_is_never_taken_is_given_up_with_a_line_that_tells_no_secret(
    url: str, hooks: HookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with nodes(url) as (node,):
            await node.alerts.add(hooks.url)
            hooks.answers[:] = [503, 503]
            await node.account(1)
            await node.look()
            last = (await node.deliveries())[0]
            await node.store.change_delivery(replace(last, attempts=len(PAUSES_SECONDS) - 1))
            await node.alerting.deliver_due()
            node.now_us += PAUSES_SECONDS[-1] * 1_000_000
            await node.alerting.deliver_due()
            assert node.outcomes == ["failed", "given_up"]
            assert await node.alerting.deliver_due() == 0

    asyncio.run(run())
    assert len(hooks.got) == 2
    (said,) = [record.message for record in caplog.records if "is given up" in record.message]
    assert f"http://127.0.0.1:{hooks.port}/...: it answered 503" in said
    assert "s3cret" not in caplog.text


def test_two_nodes_that_look_at_once_tell_it_once(postgres: Cluster, hooks: HookReceiver) -> None:
    async def run() -> None:
        async with nodes(postgres.new_books(), 2) as both:
            await both[0].alerts.add(hooks.url)
            for _ in range(8):
                await both[0].account(1)
            for _ in range(2):
                await asyncio.gather(*(node.look() for node in both))
                await asyncio.gather(*(node.alerting.deliver_due() for node in both for _ in range(2)))

            every = [each.id for each in await both[0].deliveries()]
            pages = [await both[1].store.deliveries(None, None, 3, before) for before in ("", every[2], every[5])]
            assert [each.id for page in pages for each in page] == every, "of one moment, and in pages all the same"

    asyncio.run(run())
    assert len(hooks.ids) == len(set(hooks.ids)) == 8


def test_what_a_dead_node_had_claimed_another_tells_when_the_claim_is_over(url: str, hooks: HookReceiver) -> None:
    async def run() -> None:
        async with nodes(url, 2) as (one, other):
            await one.alerts.add(hooks.url)
            await one.account(1)
            await one.look()
            hooks.answers.append("hangs")
            dying = asyncio.create_task(one.alerting.deliver_due())
            await asyncio.to_thread(eventually, lambda: bool(hooks.got))
            dying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await dying
            other.now_us = one.now_us
            assert await other.alerting.deliver_due() == 0
            other.now_us += CLAIM_US
            assert await other.alerting.deliver_due() == 1

    asyncio.run(run())
    assert len(hooks.got) == 2
    assert len(set(hooks.ids)) == 1


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://127.0.0.1:{port}/", "within the gateway's own network"),
        ("https://[::1]:{port}/", "within the gateway's own network"),
        ("https://[::ffff:127.0.0.1]:{port}/", "within the gateway's own network"),
        ("http://8.8.8.8/", "https alone"),
    ],
)
def test_an_address_of_ones_own_network_is_refused_when_it_is_added(url: str, to: str, said: str) -> None:
    async def run() -> None:
        async with nodes(url, may_be_private=False) as (node,):
            await node.alerts.add(to.format(port=1))

    with pytest.raises(Exception, match=said):
        asyncio.run(run())


def test_names_and_numbers_that_stand_for_ones_own_network_are_refused_when_it_is_told(hooks: HookReceiver) -> None:
    """Whatever they are written as, and whatever they stood for when they were added."""

    async def send(to: str) -> str | None:
        return await SafeWebhooks(None, may_be_private=False).send(to, {}, b"{}")

    for host in ("localhost", "LocalHost", "2130706433", "0x7f.1", "127.1", "017700000001"):
        assert "within the gateway's own network" in (asyncio.run(send(f"https://{host}:{hooks.port}/")) or ""), host
    for host in ("127.0.0.1", "[::ffff:7f00:1]", "[fe80::1]", "169.254.169.254"):
        assert "within the gateway's own network" in (asyncio.run(send(f"https://{host}:{hooks.port}/")) or ""), host
    assert asyncio.run(send("https://nothing.invalid/")) == "its name is not known"
    assert hooks.got == []


def test_tls_and_proxies_are_asked_for_the_name_by_its_number(
    tmp_path: Path, hooks: HookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = private_authority(tmp_path, "DNS:localhost", "DNS:hooks.test", "IP:8.8.8.8")

    async def send(to: str, ca_file: str | None = str(authority.file), *, may_be_private: bool = True) -> str | None:
        return await SafeWebhooks(ca_file, may_be_private=may_be_private).send(to, {}, b"{}")

    with behind_tls(authority, hooks.port) as port, ForwardProxy({"hooks.test": port, "8.8.8.8": port}).serving() as by:
        assert asyncio.run(send(f"https://localhost:{port}/direct")) is None
        assert hooks.got[-1].headers["host"] == f"localhost:{port}"
        assert "certificate is not trusted" in (asyncio.run(send(f"https://localhost:{port}/", None)) or "")
        assert "certificate is not trusted" in (asyncio.run(send(f"https://127.0.0.1:{port}/")) or "")
        monkeypatch.setenv("HTTPS_PROXY", by.url)
        assert asyncio.run(send("https://hooks.test/by-name")) is None
        assert asyncio.run(send("https://8.8.8.8/by-number", may_be_private=False)) is None
        assert asyncio.run(send("https://hooks.test/", may_be_private=False)) == "its name is not known"
        assert [hook.path for hook in hooks.got] == ["/direct", "/by-name", "/by-number"]
        assert [target for _, target, _ in by.heard] == ["hooks.test:443", "8.8.8.8:443"]
        by.turn("credentials")
        assert "other credentials" in (asyncio.run(send("https://hooks.test/")) or "")


# A gateway


def test_a_gateway_killed_between_raising_and_telling_tells_when_it_is_there_again(
    tmp_path: Path, hooks: HookReceiver
) -> None:
    crash = tmp_path / "crash"
    settings = {"FAREBOX_ALERTS_PRIVATE": "true", "FAREBOX_ALERTS_SECONDS": "0.2", CRASH_VARIABLE: str(crash)}
    gateway = Gateway(tmp_path, **settings)
    with gateway:
        manager = Manager(gateway)
        key = gateway.new_key("acme", "--plan", "paying", "--prepaid", "5")
        gateway.cli("account", "limit", "acme", "usd_per_day=0.00001")
        crash.write_text("alert-raised")
        slack = manager.ask("POST", "/admin/alerts", {"url": f"{hooks.url}/slack", "form": "slack", "label": "<chat>"})
        assert (slack.status, slack.json["secret"]) == (201, None)
        gateway.cli("account", "limit", "acme", "usd_per_day=0.0001")
        assert gateway.chat(key, simulate="cost=0.00008").status == 200
        gateway.process.wait(timeout=10)
        assert hooks.got == []
        gateway.start()
        eventually(lambda: bool(hooks.got))
        assert [hook.json for hook in hooks.got] == [
            {"text": "Farebox: Account acme has used 80% of its $0.0001 a day: $0.00008 spent"}
        ]
        (kept,) = manager.ask("GET", f"/admin/alerts/{slack.json['data']['id']}/deliveries").json["data"]
        assert (kept["kind"], kept["attempts"]) == ("limit_80", 1)
        told = gateway.request("GET", "/metrics").body.decode()
        assert 'farebox_alert_attempts_total{outcome="delivered"} 1.0' in told
    assert "s3cret" not in gateway.log.read_text()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {"FAREBOX_ALERTS_PRIVATE": "true", "FAREBOX_ALERTS_SECONDS": "0.2"}
    with Gateway(tmp_path_factory.mktemp("alerts"), **settings) as gateway:
        yield gateway
        gateway.audit()


def test_managers_set_who_is_told_over_http(serving: Gateway, hooks: HookReceiver) -> None:
    manager = Manager(serving)
    account = manager.account(prepaid_usd=5)
    of_one = Manager(serving, "--account", account["name"])
    made = manager.ask("POST", "/admin/alerts", {"url": hooks.url, "label": "ops", "kinds": ["low_balance"]})
    assert made.status == 201, made.body
    secret, data = made.json["secret"], made.json["data"]
    assert data["url"] == f"http://127.0.0.1:{hooks.port}/..."
    own = of_one.ask("POST", "/admin/alerts", {"url": f"{hooks.url}/own"}).json
    assert own["data"]["account"] == account["name"]
    assert own["data"]["kinds"] == ["low_balance", "limit_80", "limit_100"]
    # Only now: a receiver is not told of what was low before it was there.
    path = f"/admin/accounts/{account['id']}"
    assert manager.ask("PATCH", path, {"low_balance_usd": 10}).status == 200
    eventually(lambda: len(hooks.got) == 2)
    for hook in hooks.got:
        assert hook.json["data"]["account"] == account["name"]
        assert verified(hook, own["secret"] if hook.path.endswith("/own") else secret)
    tested = manager.ask("POST", f"/admin/alerts/{data['id']}/test", {}).json["data"]
    assert (tested["state"], hooks.got[-1].json["id"], hooks.got[-1].json["type"]) == (
        "delivered",
        tested["id"],
        "test",
    )
    listed = manager.ask("GET", "/admin/alerts")
    kept = manager.ask("GET", f"/admin/alerts/{data['id']}/deliveries")
    assert [each["kind"] for each in kept.json["data"]] == ["test", "low_balance"]
    assert [each["label"] for each in listed.json["data"]] == ["ops", ""]
    for answer in (listed, kept, manager.ask("GET", f"/admin/alerts/{data['id']}")):
        assert "s3cret" not in answer.body.decode()
        assert "whsec" not in answer.body.decode()
    assert [each["id"] for each in of_one.ask("GET", "/admin/alerts").json["data"]] == [own["data"]["id"]]
    assert of_one.ask("GET", f"/admin/alerts/{data['id']}").status == 404
    assert of_one.ask("DELETE", f"/admin/alerts/{data['id']}").status == 404
    assert of_one.ask("PATCH", path, {"low_balance_usd": 5}).status == 403
    for below, then in ((5, "5"), (0, "0"), (None, "1")):
        assert manager.ask("PATCH", path, {"low_balance_usd": below}).status == 200
        assert manager.ask("GET", path).json["data"]["low_balance_usd"] == then
    for one in (data, own["data"]):
        assert manager.ask("DELETE", f"/admin/alerts/{one['id']}").json == {"deleted": True}
    assert manager.ask("GET", "/admin/alerts").json["data"] == []
    assert "s3cret" not in serving.log.read_text()


def test_what_cannot_be_a_receiver_is_refused(serving: Gateway) -> None:
    manager = Manager(serving)
    account = manager.account()
    of_one = Manager(serving, "--account", account["name"])
    url = "https://hooks.example/x"
    for who, body, status, said in (
        (manager, {}, 400, "url: where the alerts go"),
        (manager, {"url": "hooks.example"}, 400, "url: write a URL"),
        (manager, {"url": url, "form": "fax"}, 400, "there are webhook, slack"),
        (manager, {"url": url, "kinds": ["rain"]}, 400, "kinds: 'rain' is none here"),
        (manager, {"url": url, "kinds": "rain"}, 400, "kinds: a list of texts"),
        (manager, {"url": url, "label": "a\nb"}, 400, "label: at most"),
        (manager, {"url": url, "account": "nobody"}, 404, "there is no account"),
        (manager, {"url": url, "colour": "red"}, 400, "colour: there is no such member"),
        (of_one, {"url": url, "kinds": ["failing_task"]}, 400, "kinds: 'failing_task' is none here"),
        (of_one, {"url": url, "account": "demo"}, 403, "for another account"),
    ):
        answer = who.ask("POST", "/admin/alerts", body)
        assert (answer.status, said in answer.error["message"]) == (status, True), answer.body
    for path in ("/admin/alerts/99", "/admin/alerts/x", "/admin/alerts/0"):
        assert manager.ask("GET", path).status == 404
    assert manager.ask("GET", "/admin/alerts", key=serving.key).status == 403


def test_commands_set_who_is_told(serving: Gateway, hooks: HookReceiver) -> None:
    made = serving.cli("alert", "add", hooks.url, "--label", "night", "--on", "stale_prices", "--on", "failing_task")
    assert made["kinds"] == ["failing_task", "stale_prices"]
    number = str(made["id"])
    tested = serving.cli("alert", "test", number)
    assert tested["state"] == "delivered"
    assert verified(hooks.got[0], made["secret"])
    hooks.answers.append(404)
    failed = serving.run("alert", "test", number)
    assert (failed.returncode, "the test did not arrive: it answered 404" in failed.stderr) == (1, True)
    listed = serving.cli("alert", "list")
    assert [each["label"] for each in listed] == ["night"]
    deliveries = serving.cli("alert", "deliveries", number)
    assert [(each["kind"], each["state"]) for each in deliveries] == [("test", "given_up"), ("test", "delivered")]
    assert "s3cret" not in json.dumps([made, listed, deliveries])
    assert serving.cli("alert", "low-balance", "demo") == {"account": "demo", "low_balance_usd": "1"}
    for typed, then in (("2.5", "2.5"), ("none", "0"), ("default", "1")):
        assert serving.cli("alert", "low-balance", "demo", typed)["low_balance_usd"] == then
    assert serving.cli("alert", "remove", number)["id"] == made["id"]
    assert serving.run("alert", "remove", number).returncode == 1
    refused = serving.run("alert", "add", "https://user:pass@example.com/")
    assert (refused.returncode, "a URL without a user" in refused.stderr) == (2, True)
