"""Videos: jobs that go on after their order was answered. Their holds stand until they have ended, and what they cost
is what the simulated upstream charged, however they end."""

import http.client
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openrouter import OpenRouter

from farebox.core.money import events_ceil
from farebox.crash import CRASH_VARIABLE
from tests.gateway import Gateway, Response, eventually
from tests.programs import simulator
from tests.served.test_crash_points import charged
from tests.upstreams import HttpUpstream
from tools.crash_points import arm

VIDEO: dict[str, Any] = {"model": "sim/filmer", "prompt": "A red pixel, which waits", "duration": 2}
ASKS = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "600"}
VIDEO_BYTES = 2 * 4096


def order(
    gateway: Gateway, key: str, simulate: str = "", headers: dict[str, str] | None = None, **more: Any
) -> Response:
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
    if simulate:
        sent["x-openrouter-simulate"] = simulate
    return gateway.request("POST", "/api/v1/videos", {**VIDEO, **more}, sent)


def get(gateway: Gateway, key: str, path: str, **headers: str) -> Response:
    return gateway.request("GET", f"/api/v1/videos/{path}", headers={"authorization": f"Bearer {key}", **headers})


class World:
    """A gateway that asks for what it does not know, another on the same books that asks for nothing by itself, and the
    upstream before which both stand."""

    def __init__(self, gateway: Gateway, other: Gateway, port: int) -> None:
        self.gateway = gateway
        self.other = other
        self.port = port
        self._keys: dict[str, str] = {}

    def key(self, name: str) -> str:
        if name not in self._keys:
            self._keys[name] = self.gateway.new_key(name, "--plan", "paying", "--prepaid", "20")
        return self._keys[name]

    def begin(self, name: str, simulate: str = "", **more: Any) -> str:
        """Order a video of an account; gives the job's id."""
        begun = order(self.gateway, self.key(name), simulate, **more)
        assert begun.status == 202, begun.body
        return str(begun.json["id"])

    def line(self, name: str, what: str = "") -> dict[str, Any]:
        """An account's one order; once it stands so, where that is said."""
        # A statement is read in two steps: an order that ends between them is in neither.
        eventually(lambda: [what in each["what"] for each in self.gateway.orders(name)] == [True], 30)
        (line,) = self.gateway.orders(name)
        return line

    def costs(self, name: str) -> str:
        """What an account's one job cost once that is booked: what the upstream charged, to the letter."""
        line = self.line(name, "fare")
        cost = Decimal(charged(self.port)[line["generation_id"]])
        assert (Decimal(line["cost_usd"]), line["events"]) == (cost, events_ceil(cost))
        assert Decimal(line["held_usd"]) >= cost
        return str(line["cost_usd"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        folder = tmp_path_factory.mktemp("videos")
        books = f"sqlite:///{folder / 'data' / 'farebox.db'}"
        quiet = {**ASKS, "FAREBOX_RECONCILE_SECONDS": "0", "FAREBOX_DATABASE_URL": books}
        with (
            Gateway(folder, "--upstream", url, **ASKS) as gateway,
            Gateway(tmp_path_factory.mktemp("other"), "--upstream", url, **quiet) as other,
        ):
            yield World(gateway, other, port)
            assert gateway.audit()["fares_above_their_holds"] == 0


def test_the_sdk_orders_a_video_and_gets_it(world: World) -> None:
    with OpenRouter(server_url=world.gateway.base, api_key=world.key("sdk")) as sdk:
        begun = sdk.video_generation.generate(**VIDEO)
        assert (begun.status, begun.polling_url) == ("pending", f"{world.gateway.base}/videos/{begun.id}")
        job = begun
        while job.status != "completed":
            job = sdk.video_generation.get_generation(job_id=begun.id)
        assert job.unsigned_urls == [f"{world.gateway.base}/videos/{begun.id}/content?index=0"]
        assert job.usage is not None
        assert job.usage.cost == 0.2
        assert len(sdk.video_generation.get_video_content(job_id=begun.id).read()) == VIDEO_BYTES
    assert world.costs("sdk") == "0.2"
    line = world.line("sdk")
    assert (line["kind"], line["units"]) == ("videos", {"video_seconds": str(VIDEO["duration"])})
    asked = {"x-api-key": world.key("sdk")}
    record = world.gateway.request("GET", f"/v1/generation?id={job.generation_id}", headers=asked)
    assert record.json["data"]["farebox_fare_usd"] == 0.2


@pytest.mark.parametrize(
    ("simulate", "what", "cost"),
    [
        ("job-polls=2", "fare", "0.2"),
        ("job=costs-late", "fare", "0.2"),
        ("cost=is-null", "fare", "0.2"),  # the record of its generation says it
        ("cost=3E-7", "fare", "3E-7"),
        ("job=ends-twice", "fare", "0.2"),
        ("job=fails", "not served", None),
        ("job=cancelled", "not served", None),
        ("job=expires", "not served", None),
        ("job=fails-at-a-cost", "fare", "0.2"),
    ],
)
def test_nobody_looks_and_it_is_booked_all_the_same(world: World, simulate: str, what: str, cost: str | None) -> None:
    name = f"nobody {simulate}"
    job_id = world.begin(name, simulate)
    if cost is None:
        world.line(name, what)
        assert get(world.gateway, world.key(name), job_id).json["error"].startswith("Simulated: ")
    else:
        assert Decimal(world.costs(name)) == Decimal(cost)
        told = get(world.gateway, world.key(name), job_id)
        assert told.headers["x-farebox-fare-events"] == str(events_ceil(Decimal(cost)))
        # Whatever it says when it ends a second time.
        assert Decimal(world.costs(name)) == Decimal(cost)


def test_whoever_sees_the_end_settles_and_any_node_finds_the_job(world: World) -> None:
    job_id = world.begin("anywhere", "job-polls=9")
    while (told := get(world.other, world.key("anywhere"), job_id)).json["status"] != "completed":
        assert told.status == 200
        assert "x-farebox-fare-usd" not in told.headers
    assert told.headers["x-farebox-fare-usd"] == "0.2"
    assert told.json["polling_url"] == f"{world.other.base}/videos/{job_id}"
    assert world.line("anywhere")["what"] == "fare"


def test_a_job_that_runs_is_no_alarm_and_is_told_as_what_it_is(world: World) -> None:
    job_id = world.begin("long", "job=never-ends")
    eventually(lambda: any(each["asks"] for each in world.gateway.cli("reconcile", "--list")))
    line = world.line("long")
    assert line["what"] == f"held (open: the job {job_id} runs)"
    (listed,) = [each for each in world.gateway.cli("reconcile", "--list") if each["job_id"] == job_id]
    assert (listed["unresolved"], listed["reason"]) == (False, f"the job {job_id} runs")
    assert "its job is asked for" in world.gateway.run("reconcile", "--list").stdout
    found = world.gateway.audit()
    assert (found["unresolved"], found["orders"]["open"] > 0) == (0, True)
    metrics = world.gateway.request("GET", "/metrics").body.decode()
    assert 'farebox_holds{state="unresolved"} 0.0' in metrics
    assert 'farebox_holds{state="jobs"} 0.0' not in metrics
    # An operator may end it, and its end changes nothing any more.
    world.gateway.cli("reconcile", listed["hold_id"], "--void", "--reason", "it hangs")
    assert world.line("long")["what"] == "adjustment (it hangs)"


def test_a_job_that_vanished_stays_open(world: World) -> None:
    job_id = world.begin("lost", "job=vanishes")
    world.line("lost", "does not know the job")
    gone = get(world.gateway, world.key("lost"), job_id)
    assert (gone.status, "does not know it any more" in gone.error["message"]) == (404, True)
    assert world.gateway.audit()["unresolved"] == 0


def test_jobs_are_their_accounts_alone(world: World) -> None:
    job_id = world.begin("owner", "job=never-ends")
    for path in (job_id, f"{job_id}/content"):
        mine = get(world.gateway, world.key("owner"), path)
        theirs = get(world.gateway, world.key("stranger"), path)
        nobodys = get(world.gateway, world.key("stranger"), path.replace(job_id, "job-none"))
        assert (mine.status, theirs.status, nobodys.status) == (409 if "/" in path else 200, 404, 404)
        assert theirs.body.replace(job_id.encode(), b"job-none") == nobodys.body
        assert get(world.gateway, "sk-fb-nobody", path).status == 401
    assert get(world.gateway, world.key("owner"), "..%2F..%2Fkeys").status == 404
    assert get(world.gateway, world.key("owner"), f"{job_id}/more").status == 404


def test_what_a_job_made_comes_in_parts_too(world: World) -> None:
    job_id = world.begin("viewer", "job-polls=0")
    world.costs("viewer")
    path, key = f"{job_id}/content", world.key("viewer")
    whole = get(world.gateway, key, path)
    assert (whole.status, whole.headers["content-type"], len(whole.body)) == (200, "video/mp4", VIDEO_BYTES)
    part = get(world.gateway, key, f"{path}?index=0", range="bytes=100-199")
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{VIDEO_BYTES}"
    beyond = get(world.gateway, key, path, range="bytes=99999-")
    assert (beyond.status, beyond.error["message"]) == (416, "Simulated: there is no such range")
    assert get(world.gateway, key, f"{path}?index=3").status == 404
    assert get(world.gateway, key, f"{path}?index=first").status == 400
    head = world.gateway.request("HEAD", f"/v1/videos/{path}", headers={"x-api-key": key})
    assert (head.status, head.headers["content-length"], head.body) == (200, str(VIDEO_BYTES), b"")


def test_a_key_stands_for_one_job_even_if_it_failed(world: World) -> None:
    key, headers = world.key("twice"), {"idempotency-key": "k"}
    first = order(world.gateway, key, "job=fails", headers)
    again = order(world.gateway, key, "job=fails", headers)
    assert (again.status, again.json) == (202, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    world.line("twice", "not served")
    assert order(world.gateway, key, "job=fails", headers).json == first.json
    assert order(world.gateway, key, "job=fails", headers, duration=5).status == 409
    assert len(world.gateway.orders("twice")) == 1


def test_where_a_caller_asked_is_where_it_is_sent(world: World) -> None:
    key = world.key("proxied")
    begun = order(world.gateway, key, "", {"host": "films.example", "x-forwarded-proto": "https"})
    job_id = begun.json["id"]
    assert begun.json["polling_url"] == f"https://films.example/api/v1/videos/{job_id}"
    told = get(world.gateway, key, job_id, **{"x-forwarded-host": 'films.example"<'})
    assert told.json["polling_url"] == f"{world.gateway.base}/videos/{job_id}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": ""}, "prompt: "),
        ({"duration": 0}, "duration: "),
        ({"duration": 1.5}, "duration: "),
        ({"callback_url": "https://films.example/done"}, "callback_url: "),
        ({"previous_job_id": "job-1"}, "previous_job_id: "),
    ],
)
def test_orders_that_are_refused(world: World, body: dict[str, Any], message: str) -> None:
    refused = order(world.gateway, world.key("refused"), "", **body)
    assert (refused.status, refused.error["message"].startswith(message)) == (400, True)
    assert world.gateway.orders("refused") == []


def test_what_cannot_be_covered_is_not_ordered(world: World) -> None:
    """By the price that the list of videos has, and by the longest that the model makes where no length is said."""
    key = world.gateway.new_key("thin", "--plan", "paying", "--prepaid", "0.79")
    assert order(world.gateway, key, duration=8).status == 402
    assert order(world.gateway, key, duration=None).status == 402
    assert order(world.gateway, key, duration=7).status == 202


# Kills, and upstreams that are away


@pytest.fixture
def upstream() -> Iterator[int]:
    """A simulator of the test's own: jobs of others may end, and be charged, while it runs."""
    with simulator() as port:
        yield port


KEPT = ("Settle:after", "ask:after", "send:before")
NOT_KEPT = ("forward:after",)


@pytest.mark.parametrize("point", [*NOT_KEPT, *KEPT])
def test_a_kill_loses_no_job(tmp_path: Path, upstream: int, point: str) -> None:
    settings = {**ASKS, CRASH_VARIABLE: str(tmp_path / "crash")}
    gateway = Gateway(tmp_path, "--upstream", f"http://127.0.0.1:{upstream}/api/v1", **settings)
    with gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
        arm(tmp_path / "crash", point)
        with suppress(OSError, http.client.HTTPException):
            order(gateway, key)
        gateway.process.wait(timeout=10)
        assert gateway.process.returncode == -9, "it did not come to that point"
    with gateway:
        if point in NOT_KEPT:
            # Nobody knows the job's name: an operator sees that there is one to look for.
            eventually(lambda: gateway.audit()["unresolved"] == 1, 30)
            assert "open: the process" in gateway.orders("a")[0]["what"]
            return
        # As an SDK sends it again that got no answer.
        again = order(gateway, key, "", {"x-stainless-retry-count": "1"})
        assert (again.status, again.headers["idempotency-replayed"]) == (202, "true")
        assert get(gateway, key, again.json["id"]).status == 200
        eventually(lambda: [each["what"] for each in gateway.orders("a")] == ["fare"], 60)
        (line,) = gateway.orders("a")
        assert charged(upstream) == {line["generation_id"]: line["cost_usd"]}
        assert gateway.audit()["unresolved"] == 0


JOB: dict[str, Any] = {
    "id": "job-1",
    "polling_url": "http://10.0.0.1/secret/job-1",
    "status": "completed",
    "generation_id": "gen-9",
    "unsigned_urls": ["http://10.0.0.1/secret/a", "http://10.0.0.1/secret/b"],
    "urls": ["http://10.0.0.1/secret/signed"],
    "provider_url": "http://10.0.0.1/secret/odd",
    "usage": {"cost": "0.5", "is_byok": None},
    "error": None,
}


def test_an_upstream_that_is_away_or_odd(tmp_path: Path) -> None:
    upstream = HttpUpstream(content_type="application/json", generation_id=None, status=202)
    upstream.answer = [b'{"id": "job-1", "status": "pending", "polling_url": "http://10.0.0.1/secret/job-1"}']
    with upstream.serving(), Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "200")
        begun = order(gateway, key, model="a/b")
        assert (begun.status, b"secret" in begun.body) == (202, False)
        upstream.is_down = True
        for path in ("job-1", "job-1/content"):
            away = get(gateway, key, path)
            assert away.status == 502
            assert away.error["message"]
        upstream.is_down = False
        for page in ({}, {"error": {"message": "no"}}, {"status": 1}):
            upstream.pages["/videos/job-1"] = page
            assert get(gateway, key, "job-1").status == 424
        upstream.pages["/videos/job-1"] = {"status": "in_progress", "usage": {"cost": 9}}
        assert get(gateway, key, "job-1").json["status"] == "in_progress"
        upstream.pages["/videos/job-1/content"] = {"url": "http://10.0.0.1/secret"}
        assert b"secret" not in get(gateway, key, "job-1/content").body
        assert "held" in gateway.orders("a")[0]["what"]
        upstream.pages["/videos/job-1"] = JOB
        told = get(gateway, key, "job-1")
        assert b"secret" not in told.body
        assert b"10.0.0.1" not in told.body
        assert [each.partition("/content")[2] for each in told.json["unsigned_urls"]] == ["?index=0", "?index=1"]
        assert told.json["usage"] == {"cost": 0.5}
        assert gateway.orders("a")[0]["cost_usd"] == "0.5"
        # Answers to an order that name no job.
        for odd in (b"{}", b"no", b'{"id": "../keys"}', b'{"error": {"message": "full"}}'):
            upstream.answer = [odd]
            assert order(gateway, key, model="a/b").status == 424, odd
        assert [line["what"].startswith("held (open") for line in gateway.orders("a")[1:]] == [True] * 4
        gateway.audit()
