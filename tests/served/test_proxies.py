"""Behind each proxy with its file of `deploy/proxies`: what Farebox says reaches its callers in its own words and as it
comes, and a caller's hang-up reaches Farebox."""

import contextlib
import http.client
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.sync.client import connect

from farebox.http.proxies import SILENT_SECONDS
from farebox.settings import Settings
from tests.gateway import Gateway, Response, events_of, eventually
from tests.proxies import DEPLOY, FILES, PROGRAMS, deployed
from tests.served.test_sockets import Talk, text_of

BODY_MAX = 3_000_000


def test_every_file_is_tried() -> None:
    assert {path.name for path in DEPLOY.iterdir()} == set(FILES.values())
    assert set(FILES) == set(PROGRAMS)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway for proxies to stand before."""
    settings = {"FAREBOX_BODY_BYTES_MAX": str(BODY_MAX), "FAREBOX_ALLOWED_HOSTS": "127.0.0.1,api.example"}
    with Gateway(tmp_path_factory.mktemp("gateway"), **settings) as running:
        yield running
        running.audit()


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def port(behind: Gateway, program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The proxy's."""
    with deployed(program, tmp_path_factory.mktemp(program) / "proxy", behind.port) as running:
        yield running


@dataclass
class Caller:
    """With an account of its own."""

    gateway: Gateway
    name: str
    key: str

    @contextlib.contextmanager
    def asking(
        self, port: int, simulate: str = "", *, streamed: bool = False, said: str = "Hello"
    ) -> Iterator[http.client.HTTPResponse]:
        """An order's answer, once its head is there. Hangs up where the block ends before it."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        body = {"model": "sim/echo", "messages": [{"role": "user", "content": said}], "stream": streamed}
        headers = {"authorization": f"Bearer {self.key}", "x-openrouter-simulate": simulate}
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is answered before all was sent
                connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            with connection.getresponse() as answer:
                yield answer

    def order(self, port: int, simulate: str = "", *, streamed: bool = False, said: str = "Hello") -> Response:
        with self.asking(port, simulate, streamed=streamed, said=said) as got:
            return Response(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())

    def states(self) -> list[str]:
        return [line["what"] for line in self.gateway.orders(self.name)]


@pytest.fixture
def caller(behind: Gateway, request: pytest.FixtureRequest) -> Caller:
    name = request.node.name
    return Caller(behind, name, behind.new_key(name, "--plan", "paying", "--prepaid", "100"))


SILENT_ON_HANG_UPS = {"apache2", "lighttpd", "varnishd"}
"""They look at their caller's connection only where they have something to send."""


def test_events_come_one_by_one_and_a_hang_up_stops_them(caller: Caller, program: str, port: int) -> None:
    simulate = "tokens=300,token-ms=100" if program in SILENT_ON_HANG_UPS else "stall-at-event=2"
    with caller.asking(port, simulate, streamed=True) as answer:
        assert answer.status == 200
        assert answer.readline().startswith(b"data: ")
        assert caller.states() == ["held"]
    eventually(lambda: "open: the caller hung up" in caller.states()[0])


def test_a_slow_answers_blank_lines_come_before_it(caller: Caller, port: int) -> None:
    with caller.asking(port, "first-token-ms=2000") as answer:
        assert (answer.status, answer.read(1), caller.states()) == (200, b"\n", ["held"])
        assert json.loads(answer.read())["usage"]


def test_turns_on_a_websocket_pass(behind: Gateway, port: int) -> None:
    headers = {"authorization": f"Bearer {behind.key}"}
    with connect(f"ws://127.0.0.1:{port}/v1/responses", additional_headers=headers, proxy=None) as ws:
        talk = Talk(ws)
        first = talk.turn(input="Hello")
        assert text_of(talk.turn(input="On", previous_response_id=first["response"]["id"])) == "You said: On"


def test_long_orders_and_answers_pass(caller: Caller, port: int) -> None:
    said = "x" * 2_500_000
    answer = caller.order(port, said=said)
    assert answer.json["choices"][0]["message"]["content"] == f"You said: {said}"


def test_refusals_come_in_fareboxs_words(caller: Caller, port: int) -> None:
    direct = caller.gateway.port
    for simulate in ("status=402", "status=429", "status=503", "status=500,html", "cut-at-byte=20"):
        here, there = (caller.order(each, simulate) for each in (port, direct))
        assert (here.status, here.body) == (there.status, there.body)
        assert here.headers.get("retry-after") == there.headers.get("retry-after")
        assert here.error
    for each in (port, direct):
        refused = caller.order(each, said="x" * (BODY_MAX + 1_000_000))
        assert (refused.status, refused.error["metadata"]["error_type"]) == (413, "payload_too_large")
    caller.gateway.cli("key", "limit", caller.key, "requests_per_minute=1")
    limited = [caller.order(port) for _ in range(2)][-1]
    assert (limited.status, limited.error["metadata"]["limit_source"]) == (429, "key_requests_per_minute")
    assert int(limited.headers["retry-after"]) > 0
    unknown = Caller(caller.gateway, "", "sk-fb-unknown").order(port)
    assert (unknown.status, unknown.error["code"]) == (401, 401)


def got(port: int, path: str, host: str = "api.example") -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"host": host})
        answer = connection.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def test_the_name_that_was_asked_for_reaches_farebox(behind: Gateway, port: int) -> None:
    refused = got(behind.port, "/v1/models", "other.example")
    assert refused.status >= 400
    assert got(port, "/v1/models", "other.example").body == refused.body


def test_nothing_is_kept_for_the_next_caller(port: int) -> None:
    answers = [got(port, "/v1/models") for _ in range(2)]
    assert [each.status for each in answers] == [200, 200]
    # Varnish names a kept answer's first request beside its own.
    assert [len(each.headers.get("x-varnish", "-").split()) for each in answers] == [1, 1]
    assert {each.headers.get("age", "0") for each in answers} == {"0"}


def test_a_proxy_on_this_machine_does_not_open_what_is_for_this_machine_alone(behind: Gateway, port: int) -> None:
    assert (got(behind.port, "/metrics").status, got(port, "/metrics").status) == (200, 403)


def test_names_with_a_slash_pass(behind: Gateway, program: str, port: int) -> None:
    """Escaped, as some SDKs send them. lighttpd takes the escape out."""
    for path in ("/v1/models/sim/echo/endpoints", "/v1/models/sim%2Fecho", "/v1/models/no%2Fsuch/endpoints"):
        there = got(behind.port, path.replace("%2F", "/") if program == "lighttpd" else path)
        assert (got(port, path).status, got(port, path).body) == (there.status, there.body)


PATIENCE = {
    "nginx": ("proxy_read_timeout ", "s"),
    "haproxy": ("timeout server ", "s"),
    "apache2": ("timeout=", ""),
    "lighttpd": ("max-write-idle = ", ""),
    "varnishd": ("_timeout = ", "s"),
}
"""Where each file says how long the proxy waits. Caddy waits without a bound."""


def test_it_waits_as_long_as_its_file_says_and_that_is_longer_than_farebox(
    caller: Caller, program: str, port: int, tmp_path: Path
) -> None:
    """As the file says it: with a second in that place, the proxy gives up, and the whole order is charged all the
    same."""
    whole, stream = "head-ms=2500", "first-token-ms=2500,silent"
    with ThreadPoolExecutor(4) as pool, contextlib.ExitStack() as stack:
        patient = [pool.submit(caller.order, port, each, streamed=each == stream) for each in (whole, stream)]
        if program in PATIENCE:
            before, after = PATIENCE[program]
            told = re.findall(rf"{re.escape(before)}(\d\d\d+){after}\b", (DEPLOY / FILES[program]).read_text())
            assert told
            assert min(map(int, told)) > Settings().first_byte_seconds + 60
            one = (rf"{re.escape(before)}\d\d\d+{after}\b", f"{before}1{after}")
            hasty = stack.enter_context(deployed(program, tmp_path / "hasty", caller.gateway.port, one))
            if program != "lighttpd":  # waits for an answer's head without a bound
                assert caller.order(hasty, whole).status in (502, 503, 504)
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                caller.order(hasty, stream, streamed=True)
        answer, events = (each.result() for each in patient)
    assert answer.json["usage"]
    assert events_of(events.body)[-1] == "[DONE]"
    wholes = 2 if program in PATIENCE and program != "lighttpd" else 1
    eventually(lambda: caller.states().count("fare") >= wholes + 1)


@pytest.mark.parametrize("said", [("caddy", r"keepalive (\d+)s"), ("apache2", r"ttl=(\d+)")])
def test_a_connection_is_let_go_before_farebox_closes_it(said: tuple[str, str]) -> None:
    """Where a proxy's own default is longer, orders would now and then meet a closing connection."""
    (seconds,) = re.findall(said[1], (DEPLOY / FILES[said[0]]).read_text())
    assert int(seconds) < Settings().keep_alive_seconds


HTTP_1_0 = {
    "nginx": [(r"\n *proxy_http_version 1\.1;\n *proxy_set_header Connection .*\n *proxy_set_header Upgrade .*", "")],
    "apache2": [
        (r"(?=<VirtualHost \*:80>)", "LoadModule env_module /usr/lib/apache2/modules/mod_env.so\n"),
        ("(?=ProxyPreserveHost)", "SetEnv force-proxy-request-1.0 1\nSetEnv proxy-nokeepalive 1\n"),
    ],
    "lighttpd": [(r'"upgrade" => "enable"', '"force-http10" => "enable"')],
}


@pytest.mark.parametrize("old", HTTP_1_0)
def test_a_proxy_that_speaks_http_1_0_is_served(behind: Gateway, caller: Caller, old: str, tmp_path: Path) -> None:
    with deployed(old, tmp_path / "proxy", behind.port, *HTTP_1_0[old]) as port:
        assert caller.order(port).json["usage"]
        assert caller.order(port, "first-token-ms=1300").body.startswith(b"\n")
        assert events_of(caller.order(port, streamed=True).body)[-1] == "[DONE]"
        broken = caller.order(port, "cut-at-event=2", streamed=True)
        assert events_of(broken.body)[-1]["error"]["code"] == 502
        assert caller.order(port, said="x" * (BODY_MAX + 1_000_000)).error["code"] == 413
        with caller.asking(port, "tokens=300,token-ms=100", streamed=True) as answer:
            assert answer.readline().startswith(b"data: ")
        eventually(lambda: "open: the caller hung up" in caller.states()[-1])


@pytest.mark.parametrize("by", ["end", "reset"])
def test_the_log_tells_of_a_proxy_that_gave_up_while_an_answer_was_made(gateway: Gateway, by: str) -> None:
    def leave(header: bytes, patience: float) -> None:
        body = b'{"model":"sim/echo","messages":[{"role":"user","content":"Hello"}]}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n%b" % (gateway.key.encode(), header)
        head += b"x-openrouter-simulate: head-ms=5500\r\ncontent-length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            if by == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(head + body)
            time.sleep(patience)

    with ThreadPoolExecutor(3) as pool:
        pool.submit(leave, b"x-forwarded-for: 1.2.3.4\r\n", 0.2)
        pool.submit(leave, b"", SILENT_SECONDS + 0.1)
        pool.submit(leave, b"x-forwarded-for: 1.2.3.4\r\n", SILENT_SECONDS + 0.2)
    told = [json.loads(line) for line in gateway.stop().splitlines() if "docs/proxies.md" in line]
    assert [(each["level"], "5.2 s" in each["message"]) for each in told] == [("warning", True)]
