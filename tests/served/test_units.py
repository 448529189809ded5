"""Orders that are not counted in tokens, through the gateway, with the real SDKs: what they cost is what the simulated
upstream charged, however they end."""

import http.client
import io
import json
import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openrouter import OpenRouter

from farebox.core.formats.table import KINDS
from farebox.core.kinds import UNITS
from farebox.core.money import events_ceil
from tests.fast.test_units_formats import FILE, form, packed, wav
from tests.gateway import Gateway, Response, events_of, eventually
from tests.programs import simulator
from tests.served.test_crash_points import charged
from tests.served.test_formats import EVERY, IN_UNITS
from tests.upstreams import HttpUpstream

SAID = "Hello, how are you today?"
WORDS = len(SAID.split())
SPEECH: dict[str, Any] = {"model": "sim/voice", "input": SAID, "voice": "plain"}
PICTURE: dict[str, Any] = {"model": "sim/illustrator", "prompt": "A red pixel"}


class World:
    """A gateway that asks for what it does not know, and the books of the upstream before which it stands."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway = gateway
        self.port = port
        self._keys: dict[str, str] = {}

    def key(self, name: str, prepaid: str = "5") -> str:
        if name not in self._keys:
            self._keys[name] = self.gateway.new_key(name, "--plan", "paying", "--prepaid", prepaid)
        return self._keys[name]

    def order(self, name: str, path: str, body: dict[str, Any], simulate: str = "", **headers: str) -> Response:
        head = {"authorization": f"Bearer {self.key(name)}", "content-type": "application/json", **headers}
        if simulate:
            head["x-openrouter-simulate"] = simulate
        return self.gateway.request("POST", f"/api/v1{path}", body, head)

    def costs(self, name: str, number: int = 1) -> list[str]:
        """What that many orders of an account cost, the cheapest first, once all are booked: what the upstream charged,
        to the letter."""
        eventually(lambda: [line["what"] for line in self.gateway.orders(name)] == ["fare"] * number)
        there = charged(self.port)
        lines = self.gateway.orders(name)
        for line in lines:
            cost = Decimal(there[line["generation_id"]])
            assert Decimal(line["cost_usd"]) == cost, line
            assert line["events"] == events_ceil(cost), line
            assert Decimal(line["held_usd"]) >= cost, line
        return sorted((line["cost_usd"] for line in lines), key=Decimal)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with simulator() as port:
        settings = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "600"}
        url = f"http://127.0.0.1:{port}/api/v1"
        with Gateway(tmp_path_factory.mktemp("units"), "--upstream", url, **settings) as gateway:
            yield World(gateway, port)
            assert gateway.audit()["fares_above_their_holds"] == 0


@pytest.fixture
def sdk(world: World, request: pytest.FixtureRequest) -> Iterator[OpenRouter]:
    with OpenRouter(server_url=world.gateway.base, api_key=world.key(request.node.name)) as client:
        yield client


@pytest.fixture
def openais(world: World, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=world.gateway.base, api_key=world.key(request.node.name)) as client:
        yield client


# Rerank


def test_rerank(world: World, sdk: OpenRouter, request: pytest.FixtureRequest) -> None:
    documents: Any = ["Berlin is in Germany.", {"text": "Paris is in France."}, *["nothing"] * 99]
    answer: Any = sdk.rerank.rerank(model="sim/reranker", query="Where is Paris?", documents=documents, top_n=2)
    first = answer.results[0]
    assert (first.index, first.document.text) == (1, "Paris is in France.")
    assert (len(answer.results), answer.usage.search_units, answer.usage.cost) == (2, 2, 0.004)
    assert world.costs(request.node.name) == ["0.004"]


# Images


def test_images(world: World, sdk: OpenRouter, request: pytest.FixtureRequest) -> None:
    answer: Any = sdk.images.generate(**PICTURE, n=2)
    assert len(answer.data) == 2
    stream: Any = sdk.images.generate(**PICTURE, stream=True)
    with stream as events:
        kinds = [event.type for event in events]
    assert kinds == [*["image_generation.partial_image"] * 2, "image_generation.completed"]
    assert world.costs(request.node.name, 2) == ["0.041765", "0.083515"]


def test_images_by_openais_names(world: World, openais: openai.OpenAI, request: pytest.FixtureRequest) -> None:
    answer = openais.images.generate(model="sim/poster", prompt="A red pixel")
    assert answer.data
    assert answer.data[0].b64_json
    stream: Any = openais.images.generate(model="sim/illustrator", prompt="A red pixel", stream=True, partial_images=2)
    assert [event.type for event in stream][-1] == "image_generation.completed"
    broken: Any = openais.images.generate(model="sim/illustrator:error-at-event=1", prompt="x", stream=True)
    with pytest.raises(openai.APIError, match="Simulated failure"):
        list(broken)
    assert world.costs(request.node.name, 3) == ["0", "0.04", "0.041765"]


@pytest.mark.parametrize(
    ("simulate", "last"),
    [
        ("comments=3,split=9,crlf", "completed"),
        ("usage=missing", "completed"),
        ("cost=is-null", "completed"),
        ("no-done,no-final-blank", "completed"),
        ("bare-error-at-event=1", "error"),
        ("error-at-event=0", "error"),
        ("cut-at-event=2", "error"),
    ],
)
def test_a_stream_of_pictures_whatever_goes_wrong(world: World, simulate: str, last: str) -> None:
    name = f"pictures {simulate}"
    answer = world.order(name, "/images", {**PICTURE, "stream": True}, simulate)
    events = [each for each in events_of(answer.body.replace(b"\r\n", b"\n")) if each != "[DONE]"]
    assert events[-1]["type"].endswith(last)
    if last == "error":
        assert events[-1]["error"]["message"]
        assert isinstance(events[-1]["error"]["code"], str)
    world.costs(name)


def test_a_host_without_streams_answers_whole(world: World) -> None:
    """At once as JSON; after a while, when the caller has been told that it gets a stream, as events."""
    quick = world.order("quick", "/images", {**PICTURE, "stream": True, "n": 2}, "whole")
    assert (quick.headers["content-type"], len(quick.json["data"])) == ("application/json", 2)
    assert world.costs("quick") == ["0.083515"]


HASTE = {
    "FAREBOX_STREAM_SILENCE_SECONDS": "0.2",
    "FAREBOX_SILENCE_SECONDS": "0.2",
    "FAREBOX_GRACE_SECONDS": "0",
}


def test_slow_hosts_and_a_stop(tmp_path: Path) -> None:
    """What keeps callers from giving up has no place within audio; nor has an error."""
    with Gateway(tmp_path, **HASTE) as gateway:
        headers = {"authorization": f"Bearer {gateway.key}", "x-openrouter-simulate": "whole,head-ms=900"}
        answer = gateway.request("POST", "/v1/images", {**PICTURE, "stream": True, "n": 2}, headers)
        assert answer.headers["content-type"] == "text/event-stream"
        *events, done = events_of(answer.body)
        assert (done, [event["type"] for event in events]) == ("[DONE]", ["image_generation.completed"] * 2)
        assert [event.get("usage", {}).get("cost") for event in events] == [None, 0.083515]
        assert [line["cost_usd"] for line in gateway.orders()] == ["0.083515"]
        said = gateway.request("POST", "/v1/audio/speech", {**SPEECH, "input": "a"}, headers).body
        slow = {**headers, "x-openrouter-simulate": "head-ms=500,token-ms=500,tokens=2"}
        assert gateway.request("POST", "/v1/audio/speech", SPEECH, slow).body == said * 2
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        endless = {**headers, "x-openrouter-simulate": "token-ms=200,tokens=99"}
        connection.request("POST", "/v1/audio/speech", json.dumps(SPEECH), endless)
        stopped = connection.getresponse()
        got = stopped.read(len(said))
        gateway.process.terminate()
        with pytest.raises(http.client.IncompleteRead) as cut:
            stopped.read()
        stopped.close()
        connection.close()
        got += cut.value.partial
        assert got == (said * 99)[: len(got)]
        gateway.process.wait(timeout=20)
        assert "open: the gateway is stopping" in gateway.orders()[-1]["what"]
        gateway.audit()


def leave(
    world: World,
    name: str,
    path: str,
    body: dict[str, Any],
    simulate: str,
    until: bytes,
    then: Callable[[], object] = lambda: None,
) -> bytes:
    """Order, and hang up once the answer has come so far, and `then` was done. Gives what had come."""
    text = json.dumps(body).encode()
    head = (
        f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nx-api-key: {world.key(name)}\r\nx-openrouter-simulate: {simulate}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", world.gateway.port), timeout=10) as connection:
        connection.sendall(head.encode() + text)
        got = b""
        while until not in got:
            part = connection.recv(65536)
            assert part, got
            got += part
        then()
    return got


def test_who_leaves_a_stream_of_pictures_pays_what_the_upstream_charged(world: World) -> None:
    body = {**PICTURE, "stream": True}
    leave(world, "leaver", "/images", body, "token-ms=200", b"partial_image")
    assert world.costs("leaver") == ["0.041765"]


def test_a_stream_that_nothing_names_is_not_held_back(world: World) -> None:
    body = {**PICTURE, "stream": True}
    leave(world, "nameless", "/images", body, "token-ms=400,no-generation-header", b"partial_image")
    eventually(lambda: "open: the caller hung up" in world.gateway.orders("nameless")[0]["what"])


# Speech


def test_speech(world: World, sdk: OpenRouter, openais: openai.OpenAI, request: pytest.FixtureRequest) -> None:
    said: Any = sdk.tts.create_speech(**SPEECH)
    assert len(said.read()) == 2400 * WORDS
    turns: Any = [{"text": "Hello,"}, {"text": "you"}]
    assert len(sdk.tts.create_speech(model="sim/voice", input=turns).read()) == 2400 * 2
    answer = openais.audio.speech.create(model="sim/voice", input=SAID, voice="plain", response_format="mp3")
    assert (answer.response.headers["content-type"], len(answer.content)) == ("audio/mpeg", 2400 * WORDS)
    assert world.costs(request.node.name, 3) == ["0.00015", "0.000375", "0.000375"]


def test_speech_goes_on_as_it_comes_to_the_byte(tmp_path: Path) -> None:
    odd = bytes(range(256)) * 3 + b"\n\ndata: x\n\n: OPENROUTER PROCESSING\n\n\r\n\r\n"
    upstream = HttpUpstream(answer=[odd[:9], odd[9:]], content_type="audio/pcm;rate=24000;channels=1")
    with upstream.serving(), Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        answer = gateway.request("POST", "/v1/audio/speech", {**SPEECH, "model": "a/b"}, headers)
        assert answer.body == odd
        assert answer.headers["content-type"] == "audio/pcm;rate=24000;channels=1"
        assert (answer.headers["x-generation-id"], upstream.heads[-1]["accept"]) == ("gen-1", "*/*")
        (line,) = gateway.orders("a")
        assert line["what"].startswith("held (open: ")
        assert line["generation_id"] == "gen-1"
        gateway.audit()


def test_who_leaves_speech_pays_what_was_spoken(world: World) -> None:
    leave(world, "listener", "/audio/speech", SPEECH, "token-ms=300,generation-ms=400", b"x-generation-id")
    (cost,) = world.costs("listener")
    assert 0 < Decimal(cost) < Decimal("0.000375")


def test_a_kill_in_mid_speech_loses_nothing(tmp_path: Path, world: World) -> None:
    settings = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "0.2"}
    url = f"http://127.0.0.1:{world.port}/api/v1"
    with Gateway(tmp_path, "--upstream", url, **settings) as gateway:
        killed = World(gateway, world.port)
        slow = "token-ms=300,generation-ms=400"
        got = leave(killed, "killed", "/audio/speech", SPEECH, slow, b"x-generation-id", gateway.kill)
        assert b"200 OK" in got
        gateway.start()
        (cost,) = killed.costs("killed")
        assert 0 < Decimal(cost) < Decimal("0.000375")
        gateway.audit()


def test_speech_that_breaks_off_has_no_end_and_is_not_paid_for_twice(world: World) -> None:
    with pytest.raises(http.client.IncompleteRead):
        world.order("broken", "/audio/speech", SPEECH, "cut-at-event=2")
    eventually(lambda: [line["what"] for line in world.gateway.orders("broken")] == ["fare"])
    # As OpenAI's SDK sends it again.
    again = world.order("broken", "/audio/speech", SPEECH, "cut-at-event=2", **{"x-stainless-retry-count": "1"})
    assert (again.status, again.error["code"]) == (410, 410)
    assert world.costs("broken") == ["0.000375"]


def test_an_error_in_the_place_of_speech_is_told_and_not_repeated(world: World) -> None:
    answer = world.order("no voice", "/audio/speech", SPEECH, "error-body")
    assert (answer.status, "Simulated provider failure" in answer.error["message"]) == (424, True)
    assert world.order("no voice", "/audio/speech", SPEECH, "status=503").status == 503


# Transcriptions


def test_transcriptions(world: World, sdk: OpenRouter, openais: openai.OpenAI, request: pytest.FixtureRequest) -> None:
    audio = wav(1.5)
    given: Any = {"data": packed(audio), "format": "wav"}
    told: Any = sdk.stt.create_transcription(model="sim/scribe", input_audio=given, response_format="verbose_json")
    assert (told.text, told.duration, told.usage.cost) == ("You said something for 1.5 seconds.", 1.5, 0.00015)
    file: Any = {"file_name": "a.wav", "content": io.BytesIO(audio)}
    assert sdk.stt.create_transcription_multipart(model="sim/scribe", file=file).text == told.text
    by_openai = openais.audio.transcriptions.create(model="sim/scribe", file=("a.mp3", bytes(32_000)), language="en")
    assert by_openai.text == "You said something for 2.0 seconds."
    assert world.costs(request.node.name, 3) == ["0.00015", "0.00015", "0.0002"]


def upload(world: World, name: str, body: bytes, content_type: str = "multipart/form-data; boundary=b") -> Response:
    headers = {"authorization": f"Bearer {world.key(name)}", "content-type": content_type}
    return world.gateway.request("POST", "/v1/audio/transcriptions", body, headers)


def test_forms_that_are_none(world: World) -> None:
    model = ('name="model"', b"sim/scribe")
    for body, message in (
        (form(model), "file: "),
        (form(FILE, FILE, model), "there are 2"),
        (form(FILE), "model: "),
        (form(FILE, model)[:-9], "cut off"),
    ):
        refused = upload(world, "forms", body)
        assert (refused.status, message in refused.error["message"]) == (400, True), refused.body
    assert upload(world, "forms", form(FILE, model), "multipart/form-data").status == 400
    # No other format comes as a form.
    headers = {"authorization": f"Bearer {world.key('forms')}", "content-type": "multipart/form-data; boundary=b"}
    assert world.gateway.request("POST", "/v1/images", form(model), headers).status == 415
    large = http.client.HTTPConnection("127.0.0.1", world.gateway.port, timeout=10)
    large.putrequest("POST", "/v1/audio/transcriptions")
    for header in ({**headers, "content-length": str(200 * 2**20)}).items():
        large.putheader(*header)
    large.endheaders()
    assert large.getresponse().status == 413
    large.close()
    assert world.gateway.orders("forms") == []


def test_a_form_as_large_as_a_body_may_be(world: World) -> None:
    size = 24 * 2**20
    head = 'name="file"; filename="a.mp3"'
    answer = upload(world, "long", form((head, bytes(size)), ('name="model"', b"sim/scribe")))
    seconds = round(Decimal(size) / 16_000, 1)
    assert answer.json["usage"]["seconds"] == float(seconds)
    # An hour and a half at most, of which half an hour was; the balance has to reach for all of it.
    assert Decimal(world.costs("long")[0]) == seconds * Decimal("0.0001")


# All of them


@pytest.mark.parametrize("path", IN_UNITS)
def test_what_is_not_told_is_asked_for(world: World, path: str) -> None:
    name = f"untold {path}"
    for simulate in ("usage=missing,generation-ms=300", "cost=is-null,generation-ms=300"):
        assert world.order(name, path, EVERY[path], simulate).status in (200, 202)
    world.costs(name, 2)


def test_what_a_host_charges_an_operators_own_key_is_charged(world: World) -> None:
    answer = world.order("own key", "/images", PICTURE, "byok=0.01")
    assert answer.headers["x-farebox-fare-events"] == "5177"


@pytest.mark.parametrize("path", IN_UNITS)
def test_without_the_money_nothing_is_sent(world: World, path: str) -> None:
    before = len(charged(world.port))
    poor = world.gateway.new_key(f"poor {path}", "--plan", "paying", "--prepaid", "0.00001")
    headers = {"authorization": f"Bearer {poor}", "content-type": "application/json"}
    refused = world.gateway.request("POST", f"/v1{path}", EVERY[path], headers)
    assert (refused.status, refused.error["metadata"]["error_type"]) == (402, "payment_required")
    assert len(charged(world.port)) == before


def test_a_free_caller_pays_ten_times(world: World) -> None:
    key = world.gateway.new_key("free pictures", "--plan", "free", "--prepaid", "5")
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    answer = world.gateway.request("POST", "/v1/images/generations", {**PICTURE, "model": "sim/poster"}, headers)
    assert (answer.headers["x-farebox-fare-usd"], "x-farebox-answer-cap" in answer.headers) == ("0.4", False)


# An upstream that tells no cost

OWN = """
prices_file = "prices.toml"

[upstreams.local]
kind = "openai"
base_url = "{url}"
models = ["a/b"]
formats = ["chat", "rerank"]
prices = "file"
"""
PRICE = """
[[prices]]
upstream = "local"
model = "a/b"
prompt = "0.000001"
answer = "0"
"""


def test_a_server_of_ones_own_reranks_by_ones_own_prices_and_does_nothing_else_of_this(tmp_path: Path) -> None:
    results = [{"index": 1, "relevance_score": 0.5}]
    told: list[tuple[dict[str, int], str | None]] = [
        ({"total_tokens": 56}, "0.000056"),
        ({"prompt_tokens": 56, "total_tokens": 56}, "0.000056"),
        ({"total_tokens": 56, "search_units": 1}, None),
        ({}, None),
    ]
    upstream = HttpUpstream(content_type="application/json", generation_id=None)
    with upstream.serving():
        (tmp_path / "farebox.toml").write_text(OWN.format(url=upstream.url))
        (tmp_path / "prices.toml").write_text(PRICE)
        with Gateway(tmp_path) as gateway:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            for usage, _ in told:
                upstream.answer = [json.dumps({"model": "own", "results": results, "usage": usage}).encode()]
                body = {**EVERY["/rerank"], "model": "a/b", "provider": {"sort": "price"}}
                answer = gateway.request("POST", "/v1/rerank", body, headers)
                assert answer.json["results"] == [{**results[0], "document": {}}]
                assert answer.headers["x-farebox-left-out"] == "provider"
                assert answer.headers["x-generation-id"].startswith("req_")
            lines = gateway.orders("a")
            assert [line["cost_usd"] for line in lines] == [cost for _, cost in told]
            for path in IN_UNITS[1:]:
                refused = gateway.request("POST", f"/v1{path}", {**EVERY[path], "model": "a/b"}, headers)
                assert (refused.status, f"serves no {path[1:]}" in refused.error["message"]) == (404, True)
            gateway.audit()


# Statements


def test_each_kind_stands_in_the_books_with_its_unit(world: World, request: pytest.FixtureRequest) -> None:
    name = request.node.name
    audio = {"data": packed(wav(1.5)), "format": "wav"}
    ordered: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
        "/chat/completions": (
            {"model": "sim/echo", "messages": [{"role": "user", "content": "Hi"}]},
            {},
            "completions",
        ),
        "/rerank": ({"model": "sim/reranker", "query": "a", "documents": ["b"] * 101}, {"search_units": "2"}, "rerank"),
        "/images": ({**PICTURE, "n": 2}, {"pictures": "2"}, "image"),
        "/images/generations": ({**PICTURE, "stream": True}, {"pictures": "1"}, "image"),
        "/audio/speech": (SPEECH, {"characters": str(len(SAID))}, "tts"),
        "/audio/transcriptions": ({"model": "sim/scribe", "input_audio": audio}, {"audio_seconds": "1.5"}, "stt"),
    }
    head = {"authorization": f"Bearer {world.key(name)}"}
    due = {}
    for path, (body, units, api_type) in ordered.items():
        answer = world.order(name, path, body)
        assert answer.status == 200, answer.body
        due[answer.headers["x-generation-id"]] = (units, api_type)
    world.costs(name, len(ordered))
    lines = {line["generation_id"]: line for line in world.gateway.orders(name)}
    assert {each: line["units"] for each, line in lines.items()} == {each: units for each, (units, _) in due.items()}
    listed = world.gateway.request("GET", "/api/v1/orders", headers=head).json["data"]
    for row in listed:
        (units, api_type), line = due[row["generation_id"]], lines[row["generation_id"]]
        assert ({row["unit"]: row["units"]} if row["unit"] else {}) == units
        assert (row["kind"], row["cost_usd"], row["key"]) == (line["kind"], line["cost_usd"], line["key"])
        record = world.gateway.request("GET", f"/api/v1/generation?id={row['generation_id']}", headers=head).json[
            "data"
        ]
        assert (record["api_type"], record["farebox_kind"], record["farebox_units"]) == (api_type, row["kind"], units)
    totals = world.gateway.request("GET", "/api/v1/totals?by=kind", headers=head).json["data"]
    assert {row["kind"]: (row["orders"], row["unit"], row["units"]) for row in totals} == {
        "chat": (1, None, None),
        "rerank": (1, "search_units", "2"),
        "images": (2, "pictures", "3"),
        "speech": (1, "characters", str(len(SAID))),
        "transcriptions": (1, "audio_seconds", "1.5"),
    }
    assert {row["kind"] for row in totals} <= {kind["kind"] for kind in world.gateway.audit()["kinds"]}
    assert set(KINDS.values()) >= set(UNITS) - {"videos"}
