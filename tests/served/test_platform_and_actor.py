"""One Farebox is the platform, another runs on it as a Standby Actor: 1,000 orders of paying and free callers, calls
that fail now and then, a move in the middle. What was charged there is what stands in the Actor's books, to the event.
"""

import http.client
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from secrets import token_hex
from threading import Event

import pytest

from tests.actor import Actor, run_environment
from tests.apify_platform import Fault, Platform
from tests.gateway import Gateway, eventually
from tests.served.test_actor import EVENT
from tests.served.test_runs import begin, state

ORDERS = 500
COSTS = ("0.00001212", "0.0001", "3E-7", "0", "0.00735", "0.001")
FAULTS: dict[int, Fault] = {3: "429", 8: "500", 13: "drop before", 18: "drop after"}


def now_and_then(every: int) -> Callable[[str, str, int], Fault | None]:
    """Four faults in so many calls, whatever is called, but for what makes a run begin."""

    def fault(method: str, path: str, number: int) -> Fault | None:
        return FAULTS.get(number % every)

    return fault


class Callers:
    """Threads that order, patiently: what was refused without having been served is ordered again."""

    def __init__(self, platform: Platform, tokens: list[str], count: int) -> None:
        self._platform = platform
        self._tokens = itertools.cycle(tokens)
        self._count = count
        self.answered: list[int] = []
        self.is_half = Event()

    def run(self) -> None:
        with ThreadPoolExecutor(12) as pool:
            for done in pool.map(self._order, range(self._count)):
                self.answered.append(done)
                if len(self.answered) == self._count // 2:
                    self.is_half.set()

    def _order(self, number: int) -> int:
        token = next(self._tokens)
        body = {
            "model": "sim/echo",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 20,
            "stream": number % 3 == 0,
        }
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "x-openrouter-simulate": f"cost={COSTS[number % len(COSTS)]}",
        }
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._platform.own_port, timeout=60)
            try:
                connection.request("POST", "/standby/api/v1/chat/completions", json.dumps(body), headers)
                answer = connection.getresponse()
                read = answer.read()
            finally:
                connection.close()
            if answer.status not in (429, 502):
                assert answer.status == 200, read
                return answer.status
            Event().wait(0.2)


class Moving:
    """A Standby run that goes from one machine to another."""

    def __init__(
        self, folder: Path, platform: Platform, gateway: Gateway, owner: str, upstream: int, **environment: str
    ) -> None:
        self.platform = platform
        self.owner = owner
        self.gateway = gateway
        self.run = begin(gateway, owner, {})
        self.machines: list[Actor] = []
        self._folder = folder
        self._environment = {
            "APIFY_META_ORIGIN": "STANDBY",
            "FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1",
            **environment,
        }

    @contextmanager
    def machine(self) -> Iterator[Actor]:
        folder = self._folder / f"machine-{self.run['id']}-{len(self.machines)}"
        folder.mkdir()
        counts = state(self.gateway, self.owner, self.run)["chargedEventCounts"]
        given = {**self._environment, "APIFY_CHARGED_ACTOR_EVENT_COUNTS": json.dumps(counts)}
        actor = Actor(folder, **run_environment(self.platform, self.run, self.owner, **given))
        self.machines.append(actor)
        with actor:
            self.platform.actor_port = actor.port
            yield actor

    def serve(self, callers: Callers) -> None:
        """All orders, with a move in the middle."""
        with ThreadPoolExecutor(1) as pool:
            with self.machine() as first:
                ordering = pool.submit(callers.run)
                assert callers.is_half.wait(120)
                self.platform.tell("migrating", timeRemainingSecs=10)
                reboot = ("POST", f"/v2/actor-runs/{self.run['id']}/reboot")
                eventually(lambda: reboot in self.platform.calls, 30)
                first.kill()
            with self.machine() as second:
                ordering.result(240)
                # Behind a platform that fails now and then there may be more to tell than a stop waits for.
                eventually(lambda: second.audit()["uncharged_events"] == 0, 60)

    @property
    def counted(self) -> int:
        counts: dict[str, int] = state(self.gateway, self.owner, self.run)["chargedEventCounts"]
        return counts[EVENT]

    def books(self) -> tuple[int, int]:
        """Events of all machines' ledgers, each order once; how many orders were posted."""
        events: dict[str, int] = {}
        for actor in self.machines:
            for account in actor.cli("account", "list"):
                for line in actor.statement(account["name"])["lines"]:
                    if line["hold_id"] and line.get("events") is not None:
                        events[line["hold_id"]] = line["events"]
        last = self.machines[-1].audit()
        assert last["uncharged_events"] == 0
        assert last["orders"]["pending"] == last["orders"]["open"] == 0
        return sum(events.values()), len(events)


def users(gateway: Gateway, *plans: str) -> list[str]:
    return [gateway.new_key(f"{plan} {token_hex(4)}", "--plan", plan, "--prepaid", "1000") for plan in plans]


def paid(gateway: Gateway, token: str) -> Decimal:
    """What the platform itself charged a user, in USD."""
    headers = {"authorization": f"Bearer {token}"}
    body = gateway.request("GET", "/api/v1/credits", headers=headers).body
    return Decimal(json.loads(body, parse_float=Decimal)["data"]["total_usage"])


def test_a_shared_run(tmp_path: Path, shared_gateway: Gateway, upstream: int) -> None:
    owner, paying, free = users(shared_gateway, "paying", "paying", "free")
    with Platform(shared_gateway.port, now_and_then(40), is_shared=True) as platform:
        run = Moving(tmp_path, platform, shared_gateway, owner, upstream, FAREBOX_TENANCY="multi")
        callers = Callers(platform, [paying, free, paying], ORDERS)
        run.serve(callers)
        events, orders = run.books()
        assert (len(callers.answered), orders) == (ORDERS, ORDERS)
        assert run.counted == events > ORDERS
        told = [charge for charge in platform.charges if charge["requestId"].startswith("request-")]
        assert len(told) > len({charge["key"] for charge in told}), "no call had to be repeated"


@pytest.mark.parametrize("plan", ["paying", "free"])
def test_a_run_of_its_own(tmp_path: Path, shared_gateway: Gateway, upstream: int, plan: str) -> None:
    (owner,) = users(shared_gateway, plan)
    with Platform(shared_gateway.port, now_and_then(20)) as platform:
        is_paying = "1" if plan == "paying" else ""
        run = Moving(tmp_path, platform, shared_gateway, owner, upstream, APIFY_USER_IS_PAYING=is_paying)
        callers = Callers(platform, [owner], ORDERS)
        run.serve(callers)
        events, orders = run.books()
        assert (len(callers.answered), orders) == (ORDERS, ORDERS)
        assert run.counted == events > ORDERS
        assert len(platform.charges) < ORDERS / 10, "fares of one run are told as sums"
        price = Decimal("0.00001") if plan == "paying" else Decimal("0.0001")
        assert paid(shared_gateway, owner) == events * price
