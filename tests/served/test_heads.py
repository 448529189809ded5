"""Any head that anybody may send: what is read of it, and what becomes of the order under it."""

import contextlib
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.core.headers import HEADERS_BYTES_MAX, VALUE_BYTES_MAX, read_request_head, response_headers
from tests.gateway import Gateway

NAMES = (
    "host content-length transfer-encoding authorization x-api-key content-type content-encoding idempotency-key"
    " user-agent connection expect upgrade cookie x-title x-openrouter-title x-forwarded-for te trailer"
).split()
VALUES = "x chunked gzip 0 5 -1 68 close keep-alive 100-continue websocket application/json Bearer null".split()

names = st.one_of(
    st.sampled_from([name.encode() for name in NAMES]),
    st.text("abcxyzABC-_.!~", min_size=1, max_size=12).map(str.encode),
    st.binary(min_size=1, max_size=6),
)
values = st.one_of(
    st.sampled_from([value.encode() for value in VALUES]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.encode),
    st.binary(max_size=6),
)
headers = st.lists(st.tuples(names, values), max_size=3)

FORWARDED = ("http-referer", "x-title", "x-session-id", "x-anthropic-beta", "anthropic-beta", "anthropic-version")
TOLD = (b"x-generation-id", b"retry-after", b"retry-after-ms")


@given(headers)
def test_nothing_passes_that_is_not_named(given_headers: list[tuple[bytes, bytes]]) -> None:
    head = read_request_head([(name.lower(), value) for name, value in given_headers])
    assert all(name in FORWARDED or name.startswith("x-openrouter-") for name in head.forwarded)
    assert len(head.tokens) <= 2
    assert all(head.tokens)
    for name, _ in response_headers(given_headers):
        assert name in TOLD or name.startswith((b"x-ratelimit-", b"x-openrouter-"))


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("anthropic-beta: interleaved-thinking-2025-05-14,effort-2025-11-24", "as it came"),
        ("anthropic-version: 2023-06-01", "as it came"),
        ("x-anthropic-beta: fine-grained-tool-streaming-2025-05-14", "as it came"),
        ("x-openrouter-metadata: enabled", "as it came"),
        ("x-session-id: s", "as it came"),
        # Somebody's credentials, or who they are elsewhere.
        ("authorization: Bearer sk-fb-x", ""),
        ("x-api-key: sk-fb-x", ""),
        ("cookie: a=b", ""),
        ("openai-organization: org-1", ""),
        ("openai-project: proj_1", ""),
        ("anthropic-workspace-id: wrkspc_1", ""),
        ("anthropic-user-profile-id: uprof_1", ""),
        # About the client, its machine, its way here.
        ("user-agent: claude-cli/2.1", ""),
        ("x-stainless-runtime: node", ""),
        ("x-claude-code-session-id: 0a44", ""),
        ("x-app: cli", ""),
        ("anthropic-dangerous-direct-browser-access: true", ""),
        ("openai-beta: responses=experimental", ""),
        ("x-forwarded-for: 10.0.0.1", ""),
        ("traceparent: 00-1-2-01", ""),
    ],
)
def test_what_says_something_of_the_order_passes(sent: str, passed: str) -> None:
    name, _, value = sent.partition(": ")
    forwarded = read_request_head([(name.encode(), value.encode())]).forwarded
    assert forwarded == ({name: value} if passed else {})


def test_a_header_sent_twice_is_one_list() -> None:
    sent = [
        (b"anthropic-beta", b"a-2025-01-01"),
        (b"x-title", b"t"),
        (b"anthropic-beta", b"b-2025-01-01, c-2025-01-01"),
    ]
    assert read_request_head(sent).forwarded == {
        "anthropic-beta": "a-2025-01-01, b-2025-01-01, c-2025-01-01",
        "x-title": "t",
    }


def test_what_passes_is_short_enough_for_every_client() -> None:
    """Node reads heads of 16 KiB, aiohttp headers of 8 KiB."""
    named = (b"X-Generation-Id", b"gen-1")
    long = [(b"x-openrouter-a", b"a" * (VALUE_BYTES_MAX + 1)), (b"x-openrouter-b", b"b" * VALUE_BYTES_MAX)]
    assert response_headers([*long, named]) == [long[1], (b"x-generation-id", b"gen-1")]
    many = [(b"x-openrouter-%d" % number, b"a" * 100) for number in range(1000)]
    passed = response_headers([*many, named])
    assert sum(len(name) + len(value) for name, value in passed) <= HEADERS_BYTES_MAX
    assert len(passed) > 50
    assert passed[-1] == (b"x-generation-id", b"gen-1")


BODY = b'{"model":"sim/echo:free","messages":[{"role":"user","content":"Hello"}]}'
LINES = (
    b"POST /v1/chat/completions HTTP/1.1",
    b"POST /v1/messages HTTP/1.1",
    b"POST /v1/%63hat/completions HTTP/1.1",
    b"POST //v1/chat/completions HTTP/1.1",
    b"POST /v1/../v1/chat/completions HTTP/1.0",
    b"POST http://elsewhere.example/v1/chat/completions HTTP/1.1",
    b"GET /v1/models HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"POST /v1/generation?id=%00 HTTP/1.1",
)
lines = st.one_of(st.sampled_from(LINES[:2]), st.sampled_from(LINES), st.binary(min_size=1, max_size=40))


@pytest.fixture(scope="module")
def account(shared_gateway: Gateway) -> tuple[str, str]:
    """An account's name and key."""
    return "heads", shared_gateway.new_key("heads", "--plan", "paying", "--prepaid", "1")


def first_status(port: int, request: bytes) -> int | None:
    """None where nothing came: the server waits for more, or took it for the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request)
        with contextlib.suppress(OSError):
            answer = connection.recv(65536)
            return int(answer.split(b" ", 2)[1]) if answer else None
    return None


@given(lines, headers, st.booleans())
@settings(suppress_health_check=list(HealthCheck))
def test_no_head_is_answered_with_a_failure_of_ours(
    shared_gateway: Gateway, account: tuple[str, str], line: bytes, given_headers: list[tuple[bytes, bytes]], good: bool
) -> None:
    """With a good key for a free model: whatever is served costs nothing, and whatever is not is a 4xx."""
    begun = [line, b"host: x"]
    if good:
        begun += [b"authorization: Bearer " + account[1].encode(), b"content-length: %d" % len(BODY)]
    head = b"\r\n".join([*begun, *(name + b": " + value for name, value in given_headers)])
    status = first_status(shared_gateway.port, head + b"\r\n\r\n" + BODY)
    assert status is None or status == 200 or 400 <= status < 500 or status == 100, (status, head)


def test_nothing_was_charged_for_them(shared_gateway: Gateway, account: tuple[str, str]) -> None:
    """Runs after the one above."""
    assert {line["amount_usd"] for line in shared_gateway.orders(account[0])} <= {"0"}
    shared_gateway.audit()
