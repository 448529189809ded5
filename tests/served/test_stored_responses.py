"""Answers in Responses that are kept for their account: with OpenAI's SDK, over the simulated upstream."""

import asyncio
import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import openai
import pytest

from farebox.web.routes import app
from tests import in_process
from tests.gateway import Gateway, Response, eventually
from tests.in_process import services
from tests.programs import simulator
from tests.served.test_crash_points import charged


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("stored")) as running:
        yield running
        running.audit()


_numbers = count()


@pytest.fixture
def account() -> str:
    """The name of an account of the test's own."""
    return f"account {next(_numbers)}"


@pytest.fixture
def sdk(gateway: Gateway, account: str) -> Any:
    return client(gateway, gateway.new_key(account, "--plan", "paying", "--prepaid", "5"))


def client(gateway: Gateway, key: str) -> Any:
    """OpenAI's SDK. (Any, since what each item and event has is what is tested.)"""
    return openai.OpenAI(base_url=gateway.base, api_key=key, max_retries=0)


def texts(sdk: Any, response_id: str) -> list[str]:
    page = sdk.responses.input_items.list(response_id, order="asc")
    return [part.text for item in page for part in item.content]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_is_kept_found_continued_and_deleted(sdk: Any, streamed: bool) -> None:
    def turn(said: str, **more: Any) -> Any:
        if not streamed:
            return sdk.responses.create(model="sim/echo", input=said, **more)
        with sdk.responses.stream(model="sim/echo", input=said, **more) as events:
            return events.get_final_response()

    first = turn("one")
    assert first.store is True
    assert first.previous_response_id is None
    again = sdk.responses.retrieve(first.id)
    assert (again.id, again.output_text, again.usage) == (first.id, first.output_text, first.usage)

    second = turn("two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert texts(sdk, second.id) == ["one", first.output_text, "two"]
    assert texts(sdk, first.id) == ["one"]

    third = turn("three", previous_response_id=second.id, store=False)
    assert third.store is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(third.id)

    sdk.responses.delete(first.id)
    for ask in (sdk.responses.retrieve, sdk.responses.delete):
        with pytest.raises(openai.NotFoundError):
            ask(first.id)
    with pytest.raises(openai.NotFoundError) as refused:
        turn("four", previous_response_id=second.id)
    assert refused.value.param == "previous_response_id"
    assert first.id in refused.value.message


def test_an_order_in_the_background_is_polled(gateway: Gateway, sdk: Any) -> None:
    begun = sdk.responses.create(model="sim/echo", input="later", background=True)
    assert (begun.status, begun.background, begun.output) == ("queued", True, [])
    ended = until_ended(sdk, begun.id)
    assert (ended.status, ended.output_text, ended.background) == ("completed", "You said: later", True)
    assert ended.id == begun.id
    assert sdk.responses.cancel(begun.id).status == "completed"
    after = sdk.responses.create(model="sim/echo", input="and", previous_response_id=begun.id)
    assert texts(sdk, after.id) == ["later", "You said: later", "and"]


def until_ended(sdk: Any, response_id: str) -> Any:
    found: list[Any] = []

    def has_ended() -> bool:
        found.append(sdk.responses.retrieve(response_id))
        return found[-1].status not in ("queued", "in_progress")

    eventually(has_ended)
    return found[-1]


SLOW = {"x-openrouter-simulate": "tokens=40,token-ms=25"}


def test_a_stream_in_the_background_is_taken_up_again(sdk: Any) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": "a", "background": True, "stream": True}
    seen: list[Any] = []
    with sdk.responses.create(**order, extra_headers=SLOW) as events:
        for event in events:
            seen.append(event)
            if len(seen) == 6:
                break
    response_id = seen[0].response.id
    after = seen[-1].sequence_number
    assert sdk.responses.retrieve(response_id).status == "in_progress"

    rest = list(sdk.responses.retrieve(response_id, stream=True, starting_after=after))

    assert [event.sequence_number for event in (*seen, *rest)] == list(range(len(seen) + len(rest)))
    assert rest[-1].type == "response.completed"
    assert (rest[-1].response.id, rest[-1].response.background) == (response_id, True)
    again = list(sdk.responses.retrieve(response_id, stream=True))
    assert [event.type for event in again] == [event.type for event in (*seen, *rest)]
    assert until_ended(sdk, response_id).output_text == rest[-1].response.output_text


@pytest.mark.parametrize("ends_by", ["cancel", "delete"])
def test_an_order_in_the_background_is_stopped(gateway: Gateway, sdk: Any, account: str, ends_by: str) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": ends_by, "background": True}
    begun = sdk.responses.create(**order, extra_headers={"x-openrouter-simulate": "tokens=4000,token-ms=25"})
    if ends_by == "cancel":
        assert sdk.responses.cancel(begun.id).status == "cancelled"
        assert sdk.responses.retrieve(begun.id).status == "cancelled"
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.responses.create(model="sim/echo", input="b", previous_response_id=begun.id)
        assert refused.value.param == "previous_response_id"
    else:
        sdk.responses.delete(begun.id)
    # Its stream is broken off: what it cost is told, or is asked for.
    eventually(lambda: gateway.orders(account)[0]["what"] != "held", 30)
    if ends_by == "delete":
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(begun.id)


def test_what_is_no_answer_of_the_accounts_is_not_found(gateway: Gateway, sdk: Any) -> None:
    own = sdk.responses.create(model="sim/echo", input="mine")
    other = client(gateway, gateway.key)
    asked = other.responses
    for ask in (asked.retrieve, asked.delete, asked.cancel, asked.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask(own.id)
    with pytest.raises(openai.NotFoundError):
        asked.create(model="sim/echo", input="a", previous_response_id=own.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve("resp_never")
    assert client(gateway, "sk-fb-x").api_key
    with pytest.raises(openai.AuthenticationError):
        client(gateway, "sk-fb-x").responses.retrieve(own.id)
    assert sdk.responses.retrieve(own.id).output_text == own.output_text
    with pytest.raises(openai.BadRequestError, match="background"):
        sdk.responses.cancel(own.id)


def test_an_answer_that_failed_is_not_continued(sdk: Any) -> None:
    failed = sdk.responses.create(model="sim/echo", input="a", extra_headers={"x-openrouter-simulate": "failed"})
    assert failed.status == "failed"
    assert sdk.responses.retrieve(failed.id).status == "failed"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="sim/echo", input="b", previous_response_id=failed.id)
    assert refused.value.param == "previous_response_id"


@pytest.mark.parametrize(("simulate", "said"), [("status=400", ""), ("cut-at-event=3", "upstream broke off")])
def test_an_order_in_the_background_that_gets_no_answer_says_why(sdk: Any, simulate: str, said: str) -> None:
    headers = {"x-openrouter-simulate": simulate}
    begun = sdk.responses.create(model="sim/echo", input="a", background=True, extra_headers=headers)
    ended = until_ended(sdk, begun.id)
    assert ended.status == "failed"
    assert ended.error.message
    assert said in ended.error.message


def test_a_stream_in_the_background_that_gets_no_answer_says_why(gateway: Gateway, sdk: Any) -> None:
    """Its upstream refused it, so that nothing of its own came."""
    order: dict[str, Any] = {"model": "sim/echo:status=429", "background": True, "stream": True}
    answer = post(gateway, sdk.api_key, **order)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    told = json.loads(answer.body.removeprefix(b"data: "))
    assert (told["type"], told["sequence_number"]) == ("response.failed", 0)
    failed = told["response"]
    assert (failed["status"], failed["background"], failed["model"]) == ("failed", True, order["model"])
    assert "simulated" in failed["error"]["message"]
    assert sdk.responses.retrieve(failed["id"]).to_dict() == failed
    for events in (sdk.responses.create(input="a", **order), sdk.responses.retrieve(failed["id"], stream=True)):
        with pytest.raises(openai.APIError, match="simulated"):
            list(events)


@pytest.mark.parametrize(
    ("order", "status", "member"),
    [
        ({"background": True, "store": False}, 400, "store"),
        ({"conversation": "conv_1"}, 400, "conversation"),
        ({"store": "yes"}, 400, "store"),
        ({"previous_response_id": 5}, 400, "previous_response_id"),
        ({"background": True, "model": "nobody/knows"}, 404, "nobody/knows"),
        ({"background": True, "input": []}, 400, "input"),
    ],
)
def test_what_cannot_be_kept_is_refused(gateway: Gateway, order: dict[str, Any], status: int, member: str) -> None:
    answer = post(gateway, gateway.key, **order)
    assert answer.status == status
    assert member in answer.error["message"]


def post(gateway: Gateway, key: str, **order: Any) -> Response:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return gateway.request("POST", "/api/v1/responses", {"model": "sim/echo", "input": "Hi", **order}, headers)


def test_items_of_an_input_are_paged(sdk: Any) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items: list[Any] = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]
    order = sdk.responses.create(model="sim/echo", input=items)
    latest = sdk.responses.input_items.list(order.id, limit=3)
    assert latest.has_more
    assert [item.type for item in latest.data] == ["function_call_output", "function_call", "message"]
    rest = sdk.responses.input_items.list(order.id, after=latest.last_id)
    assert (rest.has_more, [item.content[0].text for item in rest.data]) == (False, ["one"])
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "nobody"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            sdk.responses.input_items.list(order.id, **wrong)


def test_a_page_of_a_long_input_costs_what_it_shows(
    tmp_path: Path, upstream: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
    items = [{"role": "user", "content": "Hi"}] * 50_000

    async def main() -> None:
        async with services(tmp_path, f"http://127.0.0.1:{upstream}/api/v1") as found:
            await found.accounts.create("a", "paying", 0, 10**12)
            key, _, _ = await found.accounts.create_key("a", "")
            pages, order = app(found), {"model": "sim/echo", "input": items, "max_output_tokens": 5}
            placed = await in_process.ask(pages, "POST", "/api/v1/responses", key, order)
            path = f"/api/v1/responses/{placed.json['id']}/input_items"
            tracemalloc.start()
            page = (await in_process.ask(pages, "GET", path, key, query="limit=2")).json
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert (len(page["data"]), page["has_more"]) == (2, True)
            assert peak < 250 * len(items)

    asyncio.run(main())


def test_the_same_background_order_under_one_key_runs_once(gateway: Gateway, sdk: Any) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": "once", "background": True}
    headers = {"idempotency-key": "k"}
    begun = [sdk.responses.create(**order, extra_headers=headers).id for _ in range(2)]
    assert begun[0] == begun[1]
    until_ended(sdk, begun[0])
    for other in ({"input": "other"}, {"model": "sim/echo-pro"}, {"instructions": "other"}):
        with pytest.raises(openai.ConflictError):
            sdk.responses.create(**{**order, **other}, extra_headers=headers)
    with pytest.raises(openai.ConflictError):
        sdk.responses.create(model="sim/echo", input="once", extra_headers=headers)
    sdk.responses.delete(begun[0])
    with pytest.raises(openai.APIStatusError, match="was deleted") as gone:
        sdk.responses.create(**order, extra_headers=headers)
    assert gone.value.status_code == 410
    with pytest.raises(openai.BadRequestError, match="idempotency-key"):
        sdk.responses.create(**order, extra_headers={"idempotency-key": "k" * 256})


def test_the_same_background_stream_under_one_key_is_told_in_events_again(sdk: Any) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": "once", "background": True, "stream": True}
    told = [list(sdk.responses.create(**order, extra_headers={"idempotency-key": "of a stream"})) for _ in range(2)]
    assert told[0][-1].type == "response.completed"
    assert told[0] == told[1]


def test_why_a_stopped_stream_is_not_told_in_events_again(sdk: Any) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": "a", "background": True, "stream": True}
    with sdk.responses.create(**order, extra_headers=SLOW) as events:
        begun = next(events).response
        sdk.responses.cancel(begun.id)
    with pytest.raises(openai.BadRequestError, match="it was cancelled"):
        eventually(lambda: not list(sdk.responses.retrieve(begun.id, stream=True)))


# What may be kept, at upstreams of three kinds

HOSTS = """
[upstreams.openrouter]
kind = "openrouter"
base_url = "{root}/api/v1"
models = ["sim/*"]
key_variable = "HOST_KEY"

[upstreams.openai]
kind = "openai"
base_url = "{root}/openai/v1"
prices = "file"
key_variable = "HOST_KEY"
names = {{ "openai/*" = "*" }}

[upstreams.anthropic]
kind = "anthropic"
base_url = "{root}/anthropic"
prices = "file"
key_variable = "HOST_KEY"
names = {{ "anthropic/*" = "*" }}

[guards.redaction]
"""
PRICES = """
[[prices]]
upstream = "openai"
model = "gpt-sim"
prompt = "0.00000015"
answer = "0.0000006"

[[prices]]
upstream = "anthropic"
model = "claude-sim"
prompt = "0.000001"
answer = "0.000005"
"""
TIGHT = {
    "FAREBOX_PRICES_FILE": "prices.toml",
    "FAREBOX_STORED_ANSWER_BYTES_MAX": "2500",
    "FAREBOX_STORED_ACCOUNT_BYTES_MAX": "6000",
    "HOST_KEY": "k",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, int]]:
    """A gateway with little room, and the port of the program that its upstreams are."""
    folder = tmp_path_factory.mktemp("hosts")
    with simulator() as port:
        (folder / "farebox.toml").write_text(HOSTS.format(root=f"http://127.0.0.1:{port}"))
        (folder / "prices.toml").write_text(PRICES)
        with Gateway(folder, **TIGHT) as gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
            yield gateway, port
            gateway.audit()


@pytest.mark.parametrize("model", ["sim/echo", "openai/gpt-sim", "anthropic/claude-sim"])
def test_an_answer_of_any_upstream_is_continued_at_any_other(
    world: tuple[Gateway, int], account: str, model: str
) -> None:
    gateway, _ = world
    sdk = client(gateway, gateway.new_key(account, "--plan", "paying", "--prepaid", "5"))
    first = sdk.responses.create(model=model, input="one")
    with sdk.responses.stream(model=model, input="two", previous_response_id=first.id) as events:
        second = events.get_final_response()
    begun = sdk.responses.create(model=model, input="three", previous_response_id=second.id, background=True)
    third = until_ended(sdk, begun.id)
    assert (first.store, second.store, third.store, third.status) == (True, True, True, "completed")
    assert third.usage.input_tokens > second.usage.input_tokens > first.usage.input_tokens
    other = "sim/echo" if model != "sim/echo" else "anthropic/claude-sim"
    fourth = sdk.responses.create(model=other, input="four", previous_response_id=third.id)
    said = ["one", first.output_text, "two", second.output_text, "three", third.output_text, "four"]
    assert texts(sdk, fourth.id) == said
    assert [line["what"] for line in gateway.orders(account)] == ["fare"] * 4


def test_what_there_is_no_room_for_is_not_kept(world: tuple[Gateway, int], account: str) -> None:
    gateway, _ = world
    key = gateway.new_key(account, "--plan", "paying", "--prepaid", "5")
    # Too long with its answer, which nobody knew before: it is served, and says that it is not kept.
    long = post(gateway, key, input="a " * 700, store=True).json
    assert (long["status"], long["store"]) == ("completed", False)
    refused = post(gateway, key, input="a " * 2000, store=True)
    assert (refused.status, refused.json["error"]["param"]) == (413, "store")
    while (answer := post(gateway, key, input="a " * 300)).json["store"]:
        assert answer.status == 200
    refused = post(gateway, key, input="a " * 300, background=True)
    assert refused.status == 403
    assert "6000" in refused.error["message"]
    assert post(gateway, key, input="a " * 300).json["store"] is False


def test_a_key_may_be_barred_from_storing(world: tuple[Gateway, int], account: str) -> None:
    gateway, _ = world
    key = gateway.new_key(account, "--plan", "paying", "--prepaid", "5")
    assert gateway.cli("key", "store", key, "off")["may_store"] is False
    eventually(lambda: post(gateway, key).json["store"] is False)
    for asked in ({"store": True}, {"background": True}):
        refused = post(gateway, key, **asked)
        assert (refused.status, refused.json["error"]["param"]) == (403, next(iter(asked)))
    assert gateway.cli("key", "store", key, "on")["may_store"] is True
    eventually(lambda: post(gateway, key).json["store"] is True)


def test_what_a_guard_took_out_is_not_kept(world: tuple[Gateway, int], account: str) -> None:
    gateway, _ = world
    sdk = client(gateway, gateway.new_key(account, "--plan", "paying", "--prepaid", "5"))
    first = sdk.responses.create(model="sim/echo", input="I am max@example.com")
    second = sdk.responses.create(model="sim/echo", input="or joe@example.com", previous_response_id=first.id)
    kept = " ".join(texts(sdk, second.id))
    assert "@example.com" not in kept
    assert kept.count("[e-mail address]") == 3


def test_a_restart_keeps_answers_and_a_kill_ends_what_ran_in_the_background(tmp_path: Path) -> None:
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        gateway = Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-x", FAREBOX_RECONCILE_SECONDS="1")
        with gateway:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
            sdk = client(gateway, key)
            kept = sdk.responses.create(model="sim/echo", input="before")
            slow = {"x-openrouter-simulate": "tokens=4000,token-ms=25"}
            begun = sdk.responses.create(model="sim/echo", input="killed", background=True, extra_headers=slow)
            # Its stream has begun: the upstream charges for it, and the books know its name.
            eventually(lambda: any(line["what"] == "held" and line["generation_id"] for line in gateway.orders("a")))
            gateway.kill()
            with gateway:
                sdk = client(gateway, key)
                assert sdk.responses.retrieve(kept.id).output_text == kept.output_text
                ended = sdk.responses.retrieve(begun.id)
                assert ended.status == "failed"
                assert ended.error is not None
                assert "process" in ended.error.message
                after = sdk.responses.create(model="sim/echo", input="after", previous_response_id=kept.id)
                assert texts(sdk, after.id) == ["before", kept.output_text, "after"]
                eventually(lambda: [line["what"] for line in gateway.orders("a")] == ["fare"] * 3, 30)
                costs = charged(port)
                for line in gateway.orders("a"):
                    assert Decimal(line["cost_usd"]) == Decimal(costs[line["generation_id"]])
                gateway.audit()
                sdk.responses.delete(kept.id)
                with closing(sqlite3.connect(tmp_path / "data" / "farebox.db")) as books:
                    (left,) = books.execute("SELECT count(*) FROM stored_response WHERE id = ?", (kept.id,)).fetchone()
                assert left == 0
                assert "before" not in gateway.banner
