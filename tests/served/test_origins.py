"""Pages in a browser, and paths as their clients put them together."""

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import debian_install, missing
from tests.gateway import Gateway

PAGE = "https://app.example"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-retry-count,http-referer",
    "access-control-request-private-network": "true",
}
SDKS_OWN = dict.fromkeys(
    (
        *("X-Title", "X-OpenRouter-Title", "X-OpenRouter-Categories", "x-session-id"),
        *("X-Stainless-Arch", "X-Stainless-Lang", "X-Stainless-Retry-Count", "X-Stainless-Timeout"),
        *("OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta", "x-api-key"),
        *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"),
    ),
    "1",
)
"""Headers with which OpenAI's, Anthropic's and OpenRouter's clients ask from a page."""
ORDER = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that pages of one origin may call."""
    with Gateway(
        tmp_path_factory.mktemp("origins"), FAREBOX_ALLOWED_ORIGINS=f"https://other.example, {PAGE}"
    ) as running:
        yield running


def test_a_page_of_an_allowed_origin_may_ask_with_every_header_of_its_sdk(shared: Gateway) -> None:
    # The last has lost its base: a page may read what it is told then.
    for path in ("/v1/chat/completions", "/api/v1/messages", "/v1/models", "/v1/credits", "/chat/completions"):
        asked = shared.request("OPTIONS", path, headers=PREFLIGHT)
        assert asked.status == 200
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert asked.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
        assert asked.headers["access-control-allow-private-network"] == "true"
        assert "access-control-allow-credentials" not in asked.headers
    answer = shared.chat()
    assert "access-control-allow-origin" not in answer.headers
    headers = {"authorization": f"Bearer {shared.key}", "origin": PAGE}
    for body, status in ((ORDER, 200), ({**ORDER, "stream": True}, 200), ({"model": 1}, 400)):
        answer = shared.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "Origin"
        assert "x-farebox-fare-usd" in answer.headers["access-control-expose-headers"]


def test_pages_of_other_origins_and_managers_pages_may_not(shared: Gateway, shared_gateway: Gateway) -> None:
    elsewhere = {**PREFLIGHT, "origin": "https://evil.example"}
    for gateway, path, headers in (
        (shared, "/v1/chat/completions", elsewhere),
        (shared, "/v1/keys", PREFLIGHT),
        (shared, "/keys", PREFLIGHT),
        (shared, "/api/v1/keys/x", PREFLIGHT),
        (shared, "/api/v1/activity", PREFLIGHT),
        (shared, "/admin/accounts", PREFLIGHT),
        (shared, "/v2/users/me", PREFLIGHT),
        (shared, "/mcp", PREFLIGHT),
        (shared, "/metrics", PREFLIGHT),
        (shared_gateway, "/v1/chat/completions", PREFLIGHT),
    ):
        for method in ("OPTIONS", "GET", "POST"):
            answer = gateway.request(method, path, b"{}" if method == "POST" else None, headers)
            assert "access-control-allow-origin" not in answer.headers, path
            assert answer.status >= 400 or method != "OPTIONS", path


def test_every_origin_is_a_setting_too_and_what_is_no_origin_is_refused(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_ALLOWED_ORIGINS="*") as gateway:
        answer = gateway.request("GET", "/v1/models", headers={"origin": "https://anywhere.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        gateway.environment["FAREBOX_ALLOWED_ORIGINS"] = "https://app.example/path"
        refused = gateway.run("serve", "--port", "0")
        assert refused.returncode != 0
        assert "FAREBOX_ALLOWED_ORIGINS: write origins like https://app.example" in refused.stderr


@contextmanager
def page(text: str) -> Iterator[int]:
    """A page on a port of its own, which is an origin of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_a_page_in_a_real_browser_reads_answer_stream_and_fare(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        debian_install("chromium")
        chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is not installed, so no page calls")
    with Gateway(tmp_path, FAREBOX_ALLOWED_ORIGINS="*") as gateway:
        script = f"""<pre id=told></pre><script>
            const order = (more) => fetch("{gateway.base}/chat/completions", {{method: "POST", headers: {{
                Authorization: "Bearer {gateway.key}", "Content-Type": "application/json", ...{json.dumps(SDKS_OWN)}}},
                body: JSON.stringify({{...{json.dumps(ORDER)}, ...more}})}});
            (async () => {{
                const whole = await order({{}});
                const said = (await whole.json()).choices[0].message.content;
                const events = (await (await order({{stream: true}})).text()).includes("[DONE]");
                told.textContent = [said, whole.headers.get("x-farebox-fare-events"), events].join("|");
            }})();</script>"""
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
            " --virtual-time-budget=20000"
        ).split()
        with page(script) as port:
            command = [str(chromium), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
            seen = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=120)
        assert "You said: Hello|1|true" in seen.stdout, seen.stderr[-2000:]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("//v1/chat/completions", "POST"),
        ("/v1//chat/completions", "POST"),
        ("/v1/chat/completions/", "POST"),
        ("/v1/v1/messages", "POST"),
        ("/api/v1/v1/responses", "POST"),
        ("/v1/v1/embeddings", "POST"),
        ("/v1/models/", "GET"),
        ("/api/v1//models/count", "GET"),
        ("/api/v1/v1/models", "GET"),
        ("/readyz/", "GET"),
    ],
)
def test_a_base_url_with_a_slash_or_the_version_twice_is_understood(
    shared_gateway: Gateway, path: str, method: str
) -> None:
    body = {**ORDER, "input": "Hello", "max_tokens": 10} if method == "POST" else None
    if "embeddings" in path:
        body = {"model": "sim/embedder", "input": "Hello"}
    answer = shared_gateway.request(method, path, body, {"authorization": f"Bearer {shared_gateway.key}"})
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/api/v1/chat/completions"),
        ("/api/chat/completions", "/api/v1/chat/completions"),
        ("/openai/v1/responses", "/api/v1/responses"),
        ("/v1/chat/completions/chat/completions", "/api/v1/chat/completions"),
        ("/v1beta/embeddings", "/api/v1/embeddings"),
        ("/models", "/api/v1/models"),
        ("/models/sim/echo:free", "/api/v1/models/sim/echo:free"),
        ("/models/sim%2Fecho", "/api/v1/models/sim%2Fecho"),
        ("/v1/auth/key", "/api/v1/key"),
        ("/keys", "/api/v1/keys"),
    ],
)
def test_a_path_without_its_base_is_told_which_base_it_lacks(shared_gateway: Gateway, path: str, meant: str) -> None:
    for method in ("GET", "POST"):
        lost = shared_gateway.request(method, path, headers={"authorization": f"Bearer {shared_gateway.key}"})
        assert lost.status == 404
        told = f"There is nothing at '{path}' here; it is at '{meant}': let the client's base URL end in /api/v1"
        assert lost.error["message"] == told


def test_anthropics_clients_are_told_theirs_and_nobody_is_misled(shared_gateway: Gateway) -> None:
    said = {"anthropic-version": "2023-06-01"}
    for path in ("/messages", "/v1/messages/v1/messages", "/anthropic/v1/models"):
        lost = shared_gateway.request("POST", path, ORDER, said).json
        assert (lost["type"], lost["error"]["type"]) == ("error", "not_found_error")
        assert "base URL end in /api, to which Anthropic's clients add /v1" in lost["error"]["message"]
    for path in ("/nowhere", "/v1/completions", "/v2/x/keys", "/a" * 150 + "/models", "/1/2/3/4/5/6/7/8/models"):
        lost = shared_gateway.request("GET", path)
        assert lost.status == 404
        assert lost.json["error"]["message"].endswith(" here")
