"""What the log is told of proxies that close a connection while its answer is still being made."""

from pathlib import Path
from typing import Any

import pytest

from farebox.http.proxies import SILENT_SECONDS, TOLD_EVERY_SECONDS, EarlyCloses

DIRECT: dict[str, Any] = {
    "method": "POST",
    "path": "/v1/responses",
    "http_version": "1.1",
    "headers": [(b"host", b"x")],
}
SAYS_SO = [b"via", b"x-forwarded-for", b"forwarded", b"x-real-ip"]
PROXIED = [
    *({**DIRECT, "headers": [(b"host", b"x"), (name, b"1.1 x")]} for name in SAYS_SO),
    {**DIRECT, "http_version": "1.0"},
]


@pytest.mark.parametrize("scope", PROXIED)
def test_a_proxy_that_waits_too_short_is_told_of_with_the_page_that_helps(
    scope: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    EarlyCloses().saw(scope, 60.04)
    (line,) = caplog.messages
    assert "60.0 s" in line
    assert "/v1/responses" in line
    assert "docs/proxies.md" in line


def test_who_is_no_proxy_or_waits_for_no_answer_is_not(caplog: pytest.LogCaptureFixture) -> None:
    closes = EarlyCloses()
    closes.saw(DIRECT, 60)
    closes.saw({**PROXIED[0], "method": "GET"}, 60)
    closes.saw(PROXIED[0], SILENT_SECONDS - 0.1)
    assert caplog.messages == []


def test_a_minute_has_one_line_and_the_next_counts_the_others_as_the_page_shows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 1.0
    closes = EarlyCloses(lambda: now)
    scope = {**PROXIED[0], "path": "/v1/chat/completions"}
    for _ in range(3):
        closes.saw(scope, 60)
    (first,) = caplog.messages
    assert "(1 since" in first
    now += TOLD_EVERY_SECONDS
    closes.saw(scope, 60)
    closes.saw(scope, 60)
    (_, second) = caplog.messages
    page = (Path(__file__).parents[2] / "docs" / "proxies.md").read_text()
    assert second in " ".join(page.split())
