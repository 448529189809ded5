"""Out through a forward proxy, to what has a certificate of a private authority; and a proxy that misbehaves."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from farebox.actor.client import ApifyApi
from farebox.deadlines import Deadlines
from farebox.outgoing import way_to
from farebox.ports import ApifyUnreachable, UpstreamUnreachable
from farebox.upstream.openrouter import OpenRouter
from tests.forward_proxies import (
    CREDENTIALS,
    ESCAPED,
    Authority,
    ForwardProxy,
    behind_tls,
    private_authority,
    tinyproxy,
)
from tests.gateway import Gateway, eventually
from tests.programs import run
from tests.upstreams import declared

DEAD = "http://127.0.0.1:9"
NAMES = ("DNS:upstream.test", "DNS:collector.test", "DNS:api.test", "IP:0.0.0.0")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return private_authority(tmp_path_factory.mktemp("authority"), *NAMES)


@pytest.fixture
def secured(upstream: int, authority: Authority) -> Iterator[int]:
    """The simulator behind TLS."""
    with behind_tls(authority, upstream) as port:
        yield port


@contextmanager
def collector(authority: Authority) -> Iterator[tuple[int, list[str]]]:
    """A collector of spans behind TLS: its port, and the paths that were asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with behind_tls(authority, server.server_address[1]) as port:
            yield port, asked
    finally:
        server.shutdown()
        server.server_close()


def test_all_goes_out_through_the_proxy_and_what_it_refuses_costs_nothing(
    tmp_path: Path, secured: int, authority: Authority
) -> None:
    with ForwardProxy({"upstream.test": secured}).serving() as proxy, collector(authority) as (spans, asked):
        proxy.ports["collector.test"] = spans
        settings = {
            "OPENROUTER_API_KEY": "sk-or-x",
            "HTTPS_PROXY": proxy.url,
            "FAREBOX_CA_FILE": str(authority.file),
            "FAREBOX_UPSTREAM_URL": "https://upstream.test/api/v1",
            "FAREBOX_CONNECT_SECONDS": "0.5",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.test",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        gateway = Gateway(tmp_path, **settings)
        with gateway:
            gateway.key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
            shown = f"https://upstream.test/api/v1, through the proxy http://127.0.0.1:{proxy.port} (HTTPS_PROXY)"
            assert shown in gateway.banner
            assert gateway.chat().status == 200
            assert b"[DONE]" in gateway.chat(stream=True).body
            assert set(proxy.heard) >= {("CONNECT", "upstream.test:443", CREDENTIALS)}
            eventually(lambda: bool(asked))
            assert ("CONNECT", "collector.test:443", CREDENTIALS) in proxy.heard
            assert asked[0] == "/v1/traces"
            served = len(gateway.orders("a"))
            expected = {
                "forbidden": (502, "refused to connect (status 403)"),
                "credentials": (502, "wants other credentials (status 407)"),
                "html": (502, "does not speak HTTP"),
                "closes": (502, "broke off"),
                "hangs": (504, "no connection within 0.5 s"),
            }
            for behaves, (status, said) in expected.items():
                proxy.turn(behaves)
                for stream in (False, True):
                    refused = gateway.chat(stream=stream)
                    assert (behaves, refused.status) == (behaves, status)
                    assert said in refused.error["message"]
                body = {"model": "sim/echo", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
                headers = {"x-api-key": gateway.key, "content-type": "application/json"}
                refused = gateway.request("POST", "/v1/messages", body, headers)
                assert refused.status == status
                assert refused.json["type"] == "error"
                assert said in refused.json["error"]["message"]
            proxy.turn("passes on")
            assert gateway.chat().status == 200
            lines = [line["what"] for line in gateway.orders("a")]
            assert lines == ["fare"] * served + ["not served"] * 15 + ["fare"]
            gateway.audit()
        log = gateway.log.read_text()
        assert "hunter2" not in log
        assert CREDENTIALS.split()[1] not in log


def ask(url: str, authority: Authority | None, **variables: str) -> bytes:
    """What an upstream gives for a chat order, asked as the variables say."""

    async def main() -> bytes:
        way = way_to(url, None if authority is None else str(authority.file), variables)
        upstream = OpenRouter(declared(url), "key", Deadlines(), way)
        try:
            order = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
            reply = await upstream.forward("/chat/completions", json.dumps(order).encode(), {}, streamed=False)
            try:
                return await reply.read()
            finally:
                reply.close()
        finally:
            await upstream.close()

    return asyncio.run(main())


def test_tinyproxy_passes_on_with_tls_and_without(
    tmp_path: Path, upstream: int, secured: int, authority: Authority
) -> None:
    # An address that reaches this machine, and is none of those that are always asked directly.
    plain, tls = f"http://0.0.0.0:{upstream}/api/v1", f"https://0.0.0.0:{secured}/api/v1"
    with tinyproxy(tmp_path) as port:
        good = f"me:hunter2@127.0.0.1:{port}"
        assert b"You said" in ask(plain, None, http_proxy=good)
        assert b"You said" in ask(tls, authority, ALL_PROXY=good)
        for url in (plain, tls):
            for credentials, status in (("me:wrong@", 401), ("", 407)):
                with pytest.raises(UpstreamUnreachable, match=rf"wants other credentials \(status {status}\)"):
                    ask(url, authority, all_proxy=f"http://{credentials}127.0.0.1:{port}")
        log = (tmp_path / "tinyproxy.log").read_text()
    assert f"POST http://0.0.0.0:{upstream}/api/v1/chat/completions" in log
    assert f"CONNECT 0.0.0.0:{secured}" in log
    with pytest.raises(UpstreamUnreachable, match="proxy on the way to it cannot be reached: Connection refused"):
        ask(tls, authority, HTTPS_PROXY=DEAD)
    assert b"You said" in ask(tls, authority, HTTPS_PROXY=DEAD, NO_PROXY="10.0.0.0/8, 0.0.0.0")


def test_openssls_own_variable_names_authorities(
    secured: int, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert b"You said" in ask(f"https://0.0.0.0:{secured}/api/v1", None, SSL_CERT_FILE=str(authority.file))


def test_a_certificate_that_nobody_believes_is_said_to_be_none(secured: int, authority: Authority) -> None:
    url = f"https://127.0.0.1:{secured}/api/v1"
    with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted: unable to get local issuer"):
        ask(url, None)
    with pytest.raises(UpstreamUnreachable, match=r"its certificate is not trusted: .*127\.0\.0\.1"):
        ask(url, authority)
    with ForwardProxy({"upstream.test": secured, "other.test": secured}).serving() as proxy:
        for name, trusted in (("upstream.test", None), ("other.test", authority)):
            with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
                ask(f"https://{name}/api/v1", trusted, https_proxy=proxy.url)


def test_an_https_proxy_is_spoken_to_in_tls(secured: int, authority: Authority) -> None:
    with ForwardProxy({"upstream.test": secured}).serving() as proxy, behind_tls(authority, proxy.port) as front:
        assert b"You said" in ask("https://upstream.test/api/v1", authority, https_proxy=f"https://0.0.0.0:{front}")


def test_apifys_platform_is_asked_through_the_proxy() -> None:
    async def ask_it(proxy: ForwardProxy) -> None:
        way = way_to("http://api.test", variables={"http_proxy": proxy.url})
        api = ApifyApi("http://api.test", "a token", "run", "dataset", "store", way)
        try:
            with pytest.raises(ApifyUnreachable, match="status 403"):
                await api.user_of("token")
        finally:
            await api.aclose()
        way = way_to("https://api.test", variables={"https_proxy": proxy.url})
        api = ApifyApi("https://api.test", "a token", "run", "dataset", "store", way)
        try:
            with pytest.raises(ApifyUnreachable, match=r"refused to connect \(status 403\)"):
                await api.user_of("token")
        finally:
            await api.aclose()

    with ForwardProxy(behaves="forbidden").serving() as proxy:
        asyncio.run(ask_it(proxy))
        assert [method for method, _, credentials in proxy.heard if credentials] == ["GET", "CONNECT"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HTTPS_PROXY": f"socks5://me:{ESCAPED}@proxy"}, "HTTPS_PROXY: proxies that speak 'socks5' cannot be used"),
        ({"FAREBOX_CA_FILE": "absent.pem"}, "FAREBOX_CA_FILE: 'absent.pem' cannot be read: No such file"),
        ({"SSL_CERT_FILE": "/dev/null"}, "SSL_CERT_FILE: there are no certificates in '/dev/null'"),
    ],
)
def test_a_way_out_that_is_named_wrong_is_a_sentence_at_the_start(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    gateway = Gateway(tmp_path, FAREBOX_UPSTREAM_URL="https://upstream.test/api/v1", **variables)
    gateway.copy_books()
    done = run(["serve", "--port", "0"], tmp_path, gateway.environment)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


def test_the_simulator_is_asked_directly_whatever_proxy_is_named(tmp_path: Path) -> None:
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), DEAD)
    with Gateway(tmp_path, **dead) as gateway:
        assert gateway.chat().status == 200
