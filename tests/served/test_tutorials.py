"""Each tutorial's commands, run in order from an empty folder, print what the page shows under them."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.gateway import Gateway

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
PAGES = sorted(page.name for page in FOLDER.glob("*.md") if page.name != "README.md")

SERVE = re.compile(r"(pipx run --spec \S+ )?farebox serve")
FAREBOX = re.compile(
    r"(?:export (?P<name>\w+)=\$\()?farebox (?P<arguments>[^|>]*?)\)?(?: \| head -(?P<lines>\d+)| > (?P<file>\S+))?"
)
HINT = re.compile(r"\n`farebox` is not on your PATH.*?\n\n  alias [^\n]*\n", re.DOTALL)


class Reader:
    """Somebody who does what a page says."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.variables = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def does(self, command: str) -> str:
        """What a command prints."""
        if SERVE.fullmatch(command):
            self.gateway.start()
            return self.gateway.banner
        if command.startswith("alias "):
            return ""
        month = f"{datetime.now(UTC):%Y-%m}"
        command = re.sub(r"\b(month[ =])2026-11\b", rf"\g<1>{month}", command)
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{self.gateway.port}").replace(
            "sk-fb-…", self.gateway.key
        )
        if found := FAREBOX.fullmatch(command):
            return self._farebox(found)
        if exported := re.match(r"export (\w+)=", command):
            self.variables[exported[1]] = self._bash(f'{command}; printf %s "${exported[1]}"')
            return ""
        return self._bash(re.sub(r"^curl (?!-s)", "curl -s ", command))

    def _farebox(self, found: re.Match[str]) -> str:
        arguments = re.sub(r"\$(\w+)", lambda variable: self.variables[variable[1]], found["arguments"])
        done = self.gateway.run(*shlex.split(arguments))
        assert done.returncode == 0, done.stderr
        said = done.stdout
        if found["name"]:
            self.variables[found["name"]] = said.strip()
            said = ""
        elif found["file"]:
            (self.gateway.folder / found["file"]).write_text(said)
            said = ""
        elif found["lines"]:
            said = "\n".join(said.splitlines()[: int(found["lines"])])
        return said + done.stderr

    def _bash(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.gateway.folder,
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def shape(text: str, gateway: Gateway) -> str:
    """A text without what is another one each time: places, keys, times, ids, and how wide columns are for these."""
    text = HINT.sub("", text)
    text = text.replace(f"127.0.0.1:{gateway.port}", "127.0.0.1:8080").replace(str(gateway.folder), "/home/you/farebox")
    text = re.sub(r"sk-fb-(management-)?[\w-]{43}", r"sk-fb-\1…", text)
    text = re.sub(r"sk-fb-[\w-]{4}\.\.\.[\w-]{4}", "sk-fb-…", text)
    text = re.sub(r"console/enter/[\w-]+", "console/enter/…", text)
    text = re.sub(r"\b\d{4}-\d\d(-\d\d)?(T[\d:.]+Z)?", "WHEN", text)
    text = re.sub(r"gen-[\w-]+", "GENERATION", text)
    return re.sub(r" +", " ", text).strip()


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a block, and what stands under it."""
    for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = each.splitlines()
        end = 1
        if document := re.search(r"<<'(\w+)'", lines[0]):
            end = lines.index(document[1]) + 1
        while lines[end - 1].endswith("\\"):
            end += 1
        yield "\n".join(lines[:end]), "\n".join(lines[end:])


def compare(reader: Reader, command: str, shown: str) -> None:
    wanted, printed = shape(shown, reader.gateway), shape(reader.does(command), reader.gateway)
    until = time.monotonic() + 10
    # An SDK that has read a stream's last event may ask for the statement before the order is booked.
    while printed != wanted and command.startswith("farebox statement") and time.monotonic() < until:
        printed = shape(reader.does(command), reader.gateway)
    assert printed == wanted, command


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_does_what_it_shows(page: str, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    reader = Reader(gateway)
    done = 0
    try:
        for kind, body in re.findall(r"^```(\w+)\n(.*?)^```", (FOLDER / page).read_text(), re.MULTILINE | re.DOTALL):
            if file := re.match(r"# (\S+\.(?:py|toml))\n", body):
                (tmp_path / file[1]).write_text(body.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}"))
            for command, shown in steps(body) if kind == "console" else ():
                compare(reader, command, shown)
                done += 1
        gateway.audit()
    finally:
        gateway.stop()
    assert done >= 6
