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
}
ORDER = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that pages of one origin may call."""
    with Gateway(
        tmp_path_factory.mktemp("origins"), FAREBOX_ALLOWED_ORIGINS=f"https://other.example, {PAGE}"
    ) as running:
        yield running


def test_a_page_of_an_allowed_origin_may_ask_with_every_header_of_its_sdk(shared: Gateway) -> None:
    for path in ("/v1/chat/completions", "/api/v1/messages", "/v1/models", "/api/v1/generation", "/v1/credits"):
        asked = shared.request("OPTIONS", path, headers=PREFLIGHT)
        assert asked.status == 200
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert asked.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
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
                Authorization: "Bearer {gateway.key}", "Content-Type": "application/json", "X-Title": "A page"}},
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
