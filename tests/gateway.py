"""A real gateway for tests: the command that users run, in a process of its own, on a free port."""

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from typer.testing import CliRunner

from farebox.cli.commands import app
from tests import programs
from tests.books import new_books
from tests.programs import Program

START_SECONDS = 30

SECRET = re.compile(r"sk-(fb|or)-[\w-]{5,}")
LOCAL_BOOKS = "sqlite:///data/farebox.db"

PROMPT_MIN = 12
"""A prompt this long stands nowhere by chance."""


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of OpenRouter's envelope, which must be one."""
        error: dict[str, Any] = self.json["error"]
        assert error["code"] == self.status
        assert isinstance(error["code"], int)
        assert error["message"]
        assert error["metadata"]["error_type"]
        return error


def clean_environment(**more: str) -> dict[str, str]:
    """This process's, without settings that would reach the gateway."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FAREBOX_") and k != "OPENROUTER_API_KEY"}
    return {**kept, **more}


class Gateway:
    """`farebox serve` in a folder, started and stopped at will; on a copy of new books, unless it `makes_books`. With a
    `python`, by that one, newly started: where the code, or what it reads when it is loaded, is not as in other tests.
    """

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.arguments = arguments
        # Open holds stay as they are unless a test wants them asked about.
        usual = {"FAREBOX_PORT": "0", "FAREBOX_RECONCILE_SECONDS": "0"}
        self.environment = clean_environment(**{**usual, **environment}, PYTHONUNBUFFERED="1")
        self.makes_books = False
        self.python: str | None = None
        self.said: set[str] = set()
        self.key = ""
        self.port = 0
        self.banner = ""

    def copy_books(self) -> None:
        """New books, where it would make them itself: to migrate takes a process of a second's work."""
        if not self.makes_books and self.environment.get("FAREBOX_DATABASE_URL", LOCAL_BOOKS) == LOCAL_BOOKS:
            new_books(self.folder / "data" / "farebox.db")

    def start(self) -> Self:
        self.copy_books()
        self.log = self.folder / f"serve-{time.monotonic_ns()}.log"
        self.log.touch()
        self.process = self._launch(["serve", *self.arguments])
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self.banner = self.log.read_text()
            if found := re.search(r"on http://[^ ]*:(\d+)/api/v1", self.banner):
                self.port = int(found[1])
                if self._is_ready():
                    break
            assert self.process.poll() is None, self.banner
            time.sleep(0.05)
        else:
            raise AssertionError(f"not ready within {START_SECONDS} s: {self.banner}")
        if found := re.search(r"sk-fb-[\w-]{43}", self.banner):
            self.key = found[0]
        return self

    def _launch(self, arguments: list[str]) -> "Program | subprocess.Popen[bytes]":
        if self.python is None:
            return Program("farebox", arguments, self.folder, self.environment, self.log, self.log)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [self.python, "-m", "farebox", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz").status == 200
        except OSError:
            return False

    def stop(self) -> str:
        """SIGTERM, as an operator would; gives what it printed."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=40)
        return self._told()

    def _told(self) -> str:
        """What the last run printed. Over the whole suite: no key stands in it but the banner's, and no prompt."""
        told = self.log.read_text()
        later = told.replace(self.banner, "")
        assert SECRET.search(later) is None, later
        assert not [prompt for prompt in self.said if prompt in later], later
        return told

    def kill(self) -> None:
        """SIGKILL, to the whole group: nothing of it is told."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        self._told()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            try:
                self.stop()
            finally:
                if self.process.poll() is None:
                    self.kill()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def cli(self, *arguments: str, code: int = 0) -> Any:
        """A command with --json, on the gateway's books; what it printed, read. In this process: starting another for
        each would take most of the tests' time."""
        config = self.folder / "farebox.toml"
        environment = {
            **{name: None for name in os.environ if name not in self.environment},
            "FAREBOX_DATABASE_URL": f"sqlite:///{self.folder / 'data' / 'farebox.db'}",
            **{name: value for name, value in self.environment.items() if value != LOCAL_BOOKS},
            **({"FAREBOX_CONFIG": str(config)} if config.exists() else {}),
        }
        done = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
        assert done.exit_code == code, (arguments, done.output, done.exception)
        return json.loads(done.stdout)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if self.python is None:
            return programs.run(list(arguments), self.folder, self.environment)
        command = [self.python, "-m", "farebox", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def new_key(self, name: str, *terms: str) -> str:
        """A key of a new account."""
        self.cli("account", "create", name, *terms)
        return str(self.cli("key", "create", name)["key"])

    def request(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            if isinstance(body, dict):
                self.said.update(_prompts(body))
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            read = answer.read()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, read)
        finally:
            connection.close()

    def chat(self, key: str | None = None, simulate: str = "", **body: Any) -> Response:
        """A chat completion: `sim/echo` and a greeting where the body does not say otherwise."""
        body.setdefault("model", "sim/echo")
        body.setdefault("messages", [{"role": "user", "content": "Hello"}])
        headers = {"authorization": f"Bearer {key or self.key}", "content-type": "application/json"}
        if simulate:
            headers["x-openrouter-simulate"] = simulate
        return self.request("POST", "/api/v1/chat/completions", body, headers)

    def statement(self, name: str = "demo") -> dict[str, Any]:
        found: dict[str, Any] = self.cli("statement", name)
        return found

    def orders(self, name: str = "demo") -> list[dict[str, Any]]:
        """The statement's lines that are orders, oldest first."""
        return [line for line in self.statement(name)["lines"] if line["hold_id"]]

    def audit(self) -> dict[str, Any]:
        """The audit, which must find nothing wrong."""
        found: dict[str, Any] = self.cli("audit")
        assert found["differences"] == []
        return found


def _prompts(body: dict[str, Any]) -> Iterator[str]:
    """What an order says to a model, as far as it is text."""
    parts = [body.get("input"), *(each.get("content") for each in body.get("messages") or [] if isinstance(each, dict))]
    yield from (part for part in parts if isinstance(part, str) and len(part) >= PROMPT_MIN)


def events_of(body: bytes) -> list[Any]:
    """The JSON of each data event of a stream, `[DONE]` as text."""
    data = [part[6:] for part in body.decode().split("\n\n") if part.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it holds. To look is work, too: the longer it takes, the seldomer."""
    began = time.monotonic()
    while not holds():
        waited = time.monotonic() - began
        assert waited < seconds, "it never held"
        time.sleep(max(0.05, waited / 20))
