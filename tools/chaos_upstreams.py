"""What `tools.chaos` serves orders from: one simulated upstream, or several of three kinds, some of which fail.

Each says what it charged for each generation, and what a fare of that is made from.
"""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol

START_SECONDS = 30.0

Body = tuple[str, dict[str, Any]]
"""An order: its path and its body."""


class Charged(NamedTuple):
    """A generation as its upstream's books have it: by whom, and what it cost there (or by our price list)."""

    upstream: str | None
    cost: Decimal


class World(Protocol):
    """Upstreams, and what is ordered of them. `faults` may be asked for with any order."""

    bodies: Sequence[Body]
    faults: Sequence[str]

    @contextmanager
    def running(self, folder: Path) -> Iterator[dict[str, str]]:
        """Its upstreams run for as long as the block does; the settings of a gateway before them."""

    def charged(self) -> dict[str, Charged]:
        """Their books: each generation, by the name that its caller sees."""


FAULTS = (
    "",
    "",
    "token-ms=3",
    "token-ms=3,tokens=30",
    "usage=missing",
    "usage=is-null",
    "cost=is-null",
    "cost=0.00001212",
    "byok=0.0002",
    "cut-at-event=2",
    "cut-at-byte=200",
    "error-at-event=2",
    "bare-error-at-event=2",
    "no-generation-header",
    "no-done,no-final-blank",
    "status=429",
    "status=500",
    "html",
    "choices=empty",
    "head-ms=30",
    "comments=3,first-token-ms=40",
    "crlf,split=7",
)
"""What may go wrong upstream with one order, and what goes right."""

_HELLO = [{"role": "user", "content": "Hello, and tell me about the weather"}]


class OneSimulator:
    """The simulator as OpenRouter."""

    bodies: Sequence[Body] = (
        ("/chat/completions", {"model": "sim/echo", "messages": _HELLO}),
        ("/chat/completions", {"model": "sim/reasoner", "messages": _HELLO}),
        ("/messages", {"model": "sim/echo-pro", "messages": _HELLO, "max_tokens": 500}),
        ("/responses", {"model": "sim/echo", "input": "Hello, and tell me about the weather"}),
        ("/embeddings", {"model": "sim/embedder", "input": ["Hello", "there"]}),
        ("/rerank", {"model": "sim/reranker", "query": "Hello", "documents": ["Hello", "there"]}),
        ("/images", {"model": "sim/illustrator", "prompt": "Hello", "n": 2}),
        ("/audio/speech", {"model": "sim/voice", "input": "Hello, and tell me about the weather"}),
        ("/audio/transcriptions", {"model": "sim/scribe", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
    )
    faults: Sequence[str] = FAULTS

    @contextmanager
    def running(self, folder: Path) -> Iterator[dict[str, str]]:
        with simulator() as self._port:
            url = f"http://127.0.0.1:{self._port}/api/v1"
            yield {"FAREBOX_UPSTREAM_URL": url, "OPENROUTER_API_KEY": "sk-or-chaos"}

    def charged(self) -> dict[str, Charged]:
        books: dict[str, str] = json.loads(get(self._port, "/books"))
        return {generation_id: Charged(None, Decimal(cost)) for generation_id, cost in books.items()}


_OWN: Mapping[str, tuple[str, str, str, str]] = {
    "say/plain": ("sim/echo", "sim/echo-pro", "gpt-sim", "claude-sim"),
    "say/thought": ("sim/reasoner", "sim/reasoner", "o-sim", "claude-sim-pro"),
    "say/gpt-fails": ("sim/echo", "sim/echo-pro", "gpt-sim:status=429", "claude-sim"),
    "say/claude-fails": ("sim/echo", "sim/echo-pro", "gpt-sim", "claude-sim:status=529"),
    "say/one-serves": ("", "", "gpt-sim:status=500", "claude-sim"),
    "say/router-serves": ("", "sim/echo", "gpt-sim:status=404", "claude-sim:status=503"),
    "embed/any": ("sim/embedder", "sim/embedder", "text-embedding-sim", ""),
}
"""Models, and what each upstream calls them, "" where it has none: hosts refuse every order of some."""

_DECLARED = """
[upstreams.{name}]
kind = "{kind}"
base_url = "{url}"
key_variable = "CHAOS_KEY"
models = [{models}]
names = {{ {names} }}
{more}
"""

NOWHERE = "nowhere"
"""An upstream where nobody listens."""

_NAMES = ("router-one", "router-two", "gpt", "claude")

_PRICES: Mapping[str, tuple[str, str]] = {
    "gpt-sim": ("0.00000033", "0.0000014"),
    "o-sim": ("0.0000011", "0.0000047"),
    "text-embedding-sim": ("0.00000007", "0"),
    "claude-sim": ("0.0000029", "0.0000151"),
    "claude-sim-pro": ("0.0000131", "0.0000713"),
}
"""By the price file, none of them as the simulator has them: USD for a token of the prompt and of the answer."""


class SeveralUpstreams:
    """Two OpenRouters, an OpenAI and an Anthropic, and a host where nobody listens; all orders may go to all of them,
    in any format."""

    bodies: Sequence[Body] = (
        *(("/chat/completions", {"model": model, "messages": _HELLO}) for model in _OWN if model.startswith("say/")),
        *(
            ("/messages", {"model": model, "messages": _HELLO, "max_tokens": 500})
            for model in _OWN
            if model.startswith("say/")
        ),
        *(
            ("/responses", {"model": model, "input": "Hello, and tell me about the weather"})
            for model in _OWN
            if model.startswith("say/")
        ),
        ("/embeddings", {"model": "embed/any", "input": ["Hello", "there"]}),
    )
    faults: Sequence[str] = (
        *FAULTS,
        "",
        "",
        "usage=twice",
        "usage=negative",
        "streams",
        "error-body",
        "stall-at-event=3",
        "first-token-ms=80,silent",
    )

    @contextmanager
    def running(self, folder: Path) -> Iterator[dict[str, str]]:
        with ExitStack() as stack:
            self._ports = [stack.enter_context(simulator()) for _ in range(2)]
            one, two = (f"http://127.0.0.1:{port}" for port in self._ports)
            urls = (f"{one}/api/v1", f"{two}/api/v1", f"{two}/openai/v1", f"{two}/anthropic")
            kinds = ("openrouter", "openrouter", "openai", "anthropic")
            text = "".join(
                _block(name, kind, url, {ours: own[at] for ours, own in _OWN.items() if own[at]})
                for at, (name, kind, url) in enumerate(zip(_NAMES, kinds, urls, strict=True))
            )
            text += _block(NOWHERE, "openrouter", "http://127.0.0.1:9/v1", dict.fromkeys(_OWN, "sim/echo"))
            (folder / "farebox.toml").write_text(text)
            (folder / "prices.toml").write_text("".join(_priced(*each) for each in _prices()))
            yield {
                "FAREBOX_CONFIG": str(folder / "farebox.toml"),
                "FAREBOX_PRICES_FILE": str(folder / "prices.toml"),
                "CHAOS_KEY": "sk-or-chaos",
            }

    def charged(self) -> dict[str, Charged]:
        books = [json.loads(get(port, "/books/usage")) for port in self._ports]
        found = {each: Charged("router-one", Decimal(entry["cost"])) for each, entry in books[0].items()}
        for generation_id, entry in books[1].items():
            if generation_id.startswith("gen-"):
                found[generation_id] = Charged("router-two", Decimal(entry["cost"]))
                continue
            prompt, answer = map(Decimal, _PRICES[entry["model"]])
            cost = prompt * entry["prompt_tokens"] + answer * entry["answer_tokens"]
            # Embeddings have no name of their own, and get that of their request.
            name = re.sub("^embd_", "req_", generation_id)
            found[name] = Charged("claude" if name.startswith("msg_") else "gpt", cost)
        return found


def _block(name: str, kind: str, url: str, own: Mapping[str, str]) -> str:
    models = ", ".join(f'"{ours}"' for ours in own)
    names = ", ".join(f'"{ours}" = "{each}"' for ours, each in own.items())
    more = 'prices = "file"' if kind in ("openai", "anthropic") else ""
    return _DECLARED.format(name=name, kind=kind, url=url, models=models, names=names, more=more)


def _prices() -> Iterator[tuple[str, str, str, str]]:
    for model, (prompt, answer) in _PRICES.items():
        upstream = "claude" if model.startswith("claude") else "gpt"
        yield upstream, model, prompt, answer
        yield upstream, f"{model}:*", prompt, answer  # with faults behind its name


def _priced(upstream: str, model: str, prompt: str, answer: str) -> str:
    return f'[[prices]]\nupstream = "{upstream}"\nmodel = "{model}"\nprompt = "{prompt}"\nanswer = "{answer}"\n'


@contextmanager
def simulator() -> Iterator[int]:
    """The simulated upstream in a process of its own; its port."""
    command = [sys.executable, "-m", "farebox", "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r":(\d+)/", said)
            assert found, said
            port = int(found[1])
            until = time.monotonic() + START_SECONDS
            while time.monotonic() < until:
                with suppress(OSError):
                    get(port, "/books")
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
