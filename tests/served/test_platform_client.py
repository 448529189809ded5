"""The platform's newest Python client: each of its methods that is served, called, and its answer read by the client's
own models, which are strict. What is not served is listed, so that a method which a new version brings is looked at."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.request import Request, urlopen

import pytest
from apify_client import ApifyClient
from apify_client.errors import ApifyApiError

from farebox.platform.priced_events import PRICED_EVENT
from tests.gateway import Gateway
from tests.served.test_runs import CHAT, SLOW

NOT_SERVED = {
    "ActorClient": "build builds delete update validate_input version versions webhooks",
    "RunClient": "delete metamorph resurrect",
    "RunCollectionClient": "",
    "DatasetClient": "delete get_statistics update",
    "KeyValueStoreClient": "delete delete_record update",
    "RequestQueueClient": """
        add_request batch_add_requests batch_delete_requests delete delete_request delete_request_lock get_request
        iterate_requests list_and_lock_head list_head list_requests prolong_request_lock unlock_requests update
        update_request
    """,
    "LogClient": "",
    "BuildClient": "abort delete get_open_api_definition log",
    "UserClient": "limits monthly_usage update_limits",
}

HELLO = {"requests": [CHAT, {**CHAT, "model": "sim/nobody"}]}


class Watched:
    """A client of one resource, that notes which of its methods are called."""

    def __init__(self, client: Any, called: dict[str, set[str]]) -> None:
        self._client = client
        self._called = called

    def __getattr__(self, name: str) -> Any:
        self._called.setdefault(type(self._client).__name__, set()).add(name)
        method: Callable[..., Any] = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            found = method(*arguments, **options)
            return Watched(found, self._called) if type(found).__name__ in NOT_SERVED else found

        return call


@pytest.fixture
def called() -> dict[str, set[str]]:
    return {}


@pytest.fixture
def client(shared_gateway: Gateway, called: dict[str, set[str]]) -> Any:
    key = shared_gateway.new_key("of the platform's client", "--plan", "paying", "--prepaid", "1")
    url = f"http://127.0.0.1:{shared_gateway.port}"

    class Client:
        """Each resource's client, watched."""

        own = ApifyClient(key, api_url=url, api_public_url=url)
        token = key

        def __getattr__(self, name: str) -> Any:
            return lambda *of: Watched(getattr(self.own, name)(*of), called)

    return Client()


def test_each_answer_is_read_by_the_clients_own_models(client: Any, called: dict[str, set[str]]) -> None:
    run = begin_and_look_at_runs(client)
    look_at_a_run(client, run)
    look_at_a_dataset(client, run.default_dataset_id)
    look_at_a_store(client, run.default_key_value_store_id)
    look_at_the_rest(client, run)
    for kind, names in NOT_SERVED.items():
        methods = {name for name in dir(_class(client, kind)) if not name.startswith("_")}
        methods = {name for name in methods if callable(getattr(_class(client, kind), name))}
        assert called[kind] == methods - set(names.split()), kind


def _class(client: Any, kind: str) -> type[Any]:
    of = client.own
    made = [of.actor("a"), of.run("a"), of.runs(), of.dataset("a"), of.key_value_store("a"), of.request_queue("a")]
    made += [of.log("a"), of.build("a"), of.user("a")]
    return next(type(each) for each in made if type(each).__name__ == kind)


def begin_and_look_at_runs(client: Any) -> Any:
    actor = client.actor("apify/openrouter")
    assert actor.get().name == "openrouter"
    run = actor.call(
        run_input=HELLO,
        build="latest",
        max_total_charge_usd=Decimal("0.5"),
        restart_on_error=False,
        memory_mbytes=256,
        run_timeout=timedelta(minutes=5),
        force_permission_level="LIMITED_PERMISSIONS",
        webhooks=[],
        logger=None,
    )
    assert run.status == "SUCCEEDED"
    assert (run.options.memory_mbytes, run.options.timeout_secs, run.options.max_total_charge_usd) == (256, 300, 0.5)
    started = actor.start(run_input={"requests": [SLOW] * 40, "concurrency": 1}, wait_for_finish=0)
    assert client.run(started.id).reboot().id == started.id
    assert actor.last_run(status="RUNNING", origin="API").get().id == started.id
    assert client.run(started.id).abort(gracefully=True).status in ("ABORTING", "ABORTED")
    assert client.run(started.id).wait_for_finish(wait_duration=timedelta(seconds=60)).status == "ABORTED"
    hook = {"event_types": ["ACTOR.RUN.SUCCEEDED"], "request_url": "https://example.com/"}
    for option in ({"webhooks": [hook]}, {"max_items": 1}):
        with pytest.raises(ApifyApiError, match=r"webhooks: |maxItems: "):
            actor.start(run_input=HELLO, **option)
    for runs in (actor.runs(), client.runs()):
        assert runs.list(desc=True, limit=1).items[0].id == started.id
        assert [each.id for each in runs.list(status=["SUCCEEDED", "FAILED"]).items] == [run.id]
        assert runs.list(started_after=datetime(2999, 1, 1, tzinfo=UTC)).items == []
        assert [each.id for each in runs.iterate()] == [run.id, started.id]
    assert actor.default_build(wait_for_finish=1).get().id == run.build_id
    return run


def look_at_a_run(client: Any, run: Any) -> None:
    of_run = client.run(run.id)
    of_run.charge(PRICED_EVENT, count=2, idempotency_key="k")
    found = of_run.get()
    assert (found.charged_event_counts, found.pricing_info is not None) == ({PRICED_EVENT: 2}, True)
    assert of_run.wait_for_finish().status == "SUCCEEDED"
    assert of_run.update(status_message="so it is", is_status_message_terminal=True).status_message == "so it is"
    assert "1 orders served" in of_run.log().get()
    logger = logging.getLogger("tests.of_run")
    with of_run.get_streamed_log(to_logger=logger):
        pass
    of_run.get_status_message_watcher(to_logger=logger)  # made of the same calls; it sleeps for six seconds at its end
    for each in (of_run, client.actor("apify/openrouter").last_run(status="SUCCEEDED")):
        assert each.dataset().get().item_count == 2
        assert [item["status"] for item in each.dataset().list_items().items] == [200, 404]
        assert each.key_value_store().get().id == run.default_key_value_store_id
        assert [key.key for key in each.key_value_store().list_keys().items] == ["OUTPUT"]
        assert each.key_value_store().get_record("OUTPUT")["value"]["served"] == 1
        assert each.request_queue().get().id == run.default_request_queue_id
        assert each.log().get() == of_run.log().get()
    assert [item["number"] for item in of_run.iterate_dataset_items()] == [1, 2]
    of_run.dataset().push_items([{"number": 3, "list": [{"a": 1}, {"a": 2}], "deep": {"b": 1}}])
    of_run.key_value_store().set_record("STATE", {"so": "far"})


def look_at_a_dataset(client: Any, dataset_id: str) -> None:
    dataset = client.dataset(dataset_id)
    assert dataset.get().item_count == 3
    page = dataset.list_items(offset=2, limit=1, clean=True, desc=False, unwind=["list"], flatten=["deep"])
    assert page.items == [{"number": 3, "deep.b": 1, "a": 1}, {"number": 3, "deep.b": 1, "a": 2}]
    assert (page.total, page.count, page.limit) == (3, 2, 1)
    assert [item["number"] for item in dataset.iterate_items(desc=True, fields=["number"])] == [3, 2, 1]
    table = dataset.get_items_as_bytes(
        item_format="csv", bom=False, delimiter=";", fields=["number", "status"], skip_header_row=True, attachment=True
    )
    assert table == b"1;200\r\n2;404\r\n3;\r\n"
    with dataset.stream_items(item_format="jsonl", fields=["number"]) as lines:
        assert lines.read() == b'{"number":1}\n{"number":2}\n{"number":3}\n'
    with pytest.raises(ApifyApiError, match="format: "):
        dataset.get_items_as_bytes(item_format="xlsx")
    with pytest.raises(ApifyApiError, match="view: "):
        dataset.list_items(view="overview")
    dataset.push_items({"number": 4})
    assert b'"number":4' in opened(client, dataset.create_items_public_url(offset=3, clean=True))


def look_at_a_store(client: Any, store_id: str) -> None:
    store = client.key_value_store(store_id)
    assert store.get().id == store_id
    keys = store.list_keys(limit=1, prefix="S")
    assert [(key.key, key.size) for key in keys.items] == [("STATE", len('{"so": "far"}'))]
    assert [key.key for key in store.iterate_keys(limit=5)] == ["OUTPUT", "STATE"]
    assert (store.record_exists("STATE"), store.record_exists("NOBODY")) == (True, False)
    assert store.get_record("NOBODY") is None
    assert store.get_record_as_bytes("STATE")["value"] == b'{"so": "far"}'
    with store.stream_record("STATE") as record:
        assert record["value"].read() == b'{"so": "far"}'
    store.set_record("TEXT", "so far", content_type="text/plain")
    assert store.get_record("TEXT")["value"] == "so far"
    (key,) = store.list_keys(prefix="TEXT").items
    for url in (str(key.record_public_url), store.get_record_public_url("TEXT")):
        assert opened(client, url) == b"so far"
    assert b"recordPublicUrl" in opened(client, store.create_keys_public_url(prefix="T"))


def look_at_the_rest(client: Any, run: Any) -> None:
    assert client.request_queue(run.default_request_queue_id).get().total_request_count == 0
    log = client.log(run.id)
    assert log.get_as_bytes() == log.get(raw=True).encode()
    with log.stream(raw=True) as lines:
        assert lines.read() == log.get_as_bytes()
    assert client.build(run.build_id).get().build_number == run.build_number
    assert client.build(run.build_id).wait_for_finish(wait_duration=timedelta(seconds=1)).status == "SUCCEEDED"
    assert client.user("me").get().plan is not None
    assert client.user(run.user_id).get().username == client.user("me").get().username
    for nobody in (client.run, client.dataset, client.key_value_store, client.request_queue, client.log, client.build):
        assert nobody("nobody").get() is None


def opened(client: Any, url: str) -> bytes:
    """A public URL asks for the token, as everything here."""
    with urlopen(Request(url, headers={"authorization": f"Bearer {client.token}"})) as answer:
        read: bytes = answer.read()
        return read
