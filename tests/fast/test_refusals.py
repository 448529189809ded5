"""Errors of endpoints: a refusal before the answer has begun, a broken connection after that."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from farebox.http.asgi import Endpoint, send_body, send_start
from farebox.http.refusals import guarded


def play(endpoint: Endpoint, sent: list[Message]) -> None:
    async def receive() -> Message:
        raise AssertionError("a GET has no body")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(_serve(guarded(endpoint), receive, send))


async def _serve(endpoint: Endpoint, receive: Receive, send: Send) -> None:
    await endpoint({"type": "http", "method": "GET", "path": "/"}, receive, send)


def test_an_error_before_the_answer_has_begun_is_refused() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    sent: list[Message] = []
    play(broken, sent)
    start, body = sent
    assert (start["status"], b'"error"' in body["body"]) == (424, True)


def test_an_error_after_the_answer_has_begun_breaks_it_off() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send_start(send, 200, [])
        await send_body(send, b"half", more=True)
        raise ValueError("broken")

    sent: list[Message] = []
    with pytest.raises(ValueError, match="broken"):
        play(broken, sent)
    start, body = sent
    assert (start["status"], body["body"]) == (200, b"half")
