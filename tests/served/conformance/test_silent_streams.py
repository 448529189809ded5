"""The SDKs on streams whose upstream is silent before its head and between its events: they skip keep-alives. And a
caller's hang-up behind a proxy that looks for none."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import anthropic
import openai
import pytest
from openrouter import OpenRouter

from tests.gateway import Gateway, eventually

HELLO: Any = [{"role": "user", "content": "Hello"}]
SAID = "You said: Hello"
SILENT = "sim/echo:head-ms=600,token-ms=400"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("talkative"), FAREBOX_STREAM_SILENCE_SECONDS="0.1") as gateway:
        yield gateway
        gateway.audit()


def openai_chat(gateway: Gateway) -> str:
    with (
        openai.OpenAI(base_url=gateway.base, api_key=gateway.key, max_retries=0) as client,
        client.chat.completions.stream(model=SILENT, messages=HELLO) as stream,
    ):
        return stream.get_final_completion().choices[0].message.content or ""


def openai_responses(gateway: Gateway) -> str:
    with (
        openai.OpenAI(base_url=gateway.base, api_key=gateway.key, max_retries=0) as client,
        client.responses.stream(model=SILENT, input="Hello") as stream,
    ):
        return stream.get_final_response().output_text


def anthropic_messages(gateway: Gateway) -> str:
    base = gateway.base.removesuffix("/v1")
    with (
        anthropic.Anthropic(base_url=base, api_key=gateway.key, max_retries=0) as client,
        client.messages.stream(model=SILENT, max_tokens=99, messages=HELLO) as stream,
    ):
        return "".join(stream.text_stream)


def openrouter_chat(gateway: Gateway) -> str:
    with (
        OpenRouter(server_url=gateway.base, api_key=gateway.key) as router,
        router.chat.send(model=SILENT, messages=HELLO, stream=True) as stream,
    ):
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def openrouter_responses(gateway: Gateway) -> str:
    stream: Any
    with (
        OpenRouter(server_url=gateway.base, api_key=gateway.key) as router,
        router.responses.send(model=SILENT, input="Hello", stream=True) as stream,
    ):
        return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


def test_the_python_sdks_read_keep_alives(talkative: Gateway) -> None:
    asking: list[Callable[[Gateway], str]] = [openai_chat, openai_responses, anthropic_messages]
    asking += [openrouter_chat, openrouter_responses]
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda ask: ask(talkative), asking)) == [SAID] * len(asking)


def test_the_node_sdks_read_keep_alives(talkative: Gateway, node: Path) -> None:
    done = subprocess.run(
        ["node", "silent.mjs"],
        cwd=node,
        env={**os.environ, "BASE": talkative.base, "KEY": talkative.key, "MODEL": SILENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 6


def order(gateway: Gateway, key: str, simulate: str, version: str = "1.1") -> bytes:
    """A streamed order, as it is sent."""
    body = b'{"model":"sim/echo","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
    head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: x\r\nx-api-key: {key}\r\nconnection: close\r\n"
    return f"{head}x-openrouter-simulate: {simulate}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def test_a_client_of_http_1_0_reads_keep_alives_as_they_are(talkative: Gateway) -> None:
    got = b""
    with socket.create_connection(("127.0.0.1", talkative.port), timeout=10) as connection:
        connection.sendall(order(talkative, talkative.key, "head-ms=600,token-ms=400", "1.0"))
        while part := connection.recv(65536):
            got += part
    _, _, body = got.partition(b"\r\n\r\n")
    assert body.startswith(b": keep-alive\n\n")
    assert body.endswith(b"data: [DONE]\n\n")
    assert all(
        event.startswith((b": ", b"data: {")) for event in body.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
    )


class Forgetful:
    """A proxy that looks at its caller only when it has something for it, as HAProxy, Apache and Varnish do."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._behind = port
        self.has_noticed = Event()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        caller, _ = self._listening.accept()
        with self._listening, caller, socket.create_connection(("127.0.0.1", self._behind)) as behind:
            behind.sendall(caller.recv(65536))
            while part := behind.recv(65536):
                try:
                    caller.sendall(part)
                except OSError:
                    self.has_noticed.set()
                    return


def test_a_hang_up_in_a_silence_is_seen_behind_a_proxy_that_looks_only_when_it_sends(talkative: Gateway) -> None:
    key = talkative.new_key("leaves", "--plan", "paying", "--prepaid", "1")
    proxy = Forgetful(talkative.port)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(order(talkative, key, "stall-at-event=1"))
        got = b""
        while b"keep-alive" not in got:
            got += connection.recv(65536)
    eventually(lambda: "open: the caller hung up" in talkative.orders("leaves")[0]["what"])
    assert proxy.has_noticed.is_set()
