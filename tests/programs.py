"""Farebox's programs in processes of their own, forked from one that has loaded the code: a test starts some five
hundred, and to load it takes each half a second of work. `test_readme` and `test_packages` start them as people do."""

import importlib
import multiprocessing
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from farebox import crash

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(
    [
        f"farebox.{name}"
        for name in ("cli.serve", "simulator.server", "cli.accounts", "cli.books", "cli.batch", "actor.standby")
    ]
)

START_SECONDS = 30.0


class Program:
    """`python -m MODULE ARGUMENTS`, leader of a session of its own; with the face of a `subprocess.Popen`."""

    def __init__(
        self, module: str, arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path
    ) -> None:
        self._process = _FORKSERVER.Process(
            target=_run, args=(module, arguments, str(folder), environment, str(out), str(err))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """`farebox ARGUMENTS` to its end: what it printed, and its status."""
    with TemporaryDirectory(prefix="farebox-run-") as outputs:
        out, err = Path(outputs) / "out", Path(outputs) / "err"
        program = Program("farebox", arguments, folder, environment, out, err)
        try:
            code = program.wait(60)
        finally:
            if program.returncode is None:
                program.terminate()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


@contextmanager
def simulator() -> Iterator[int]:
    """The simulated upstream in a process of its own; its port."""
    with TemporaryDirectory(prefix="farebox-simulator-") as folder:
        said = Path(folder) / "said"
        program = Program(
            "farebox", ["simulate", "--port", "0"], Path(folder), {**os.environ, "PYTHONUNBUFFERED": "1"}, said, said
        )
        until = time.monotonic() + START_SECONDS
        try:
            while not (found := re.search(r":(\d+)/", said.read_text() if said.exists() else "")):
                assert time.monotonic() < until, said.read_text()
                assert program.poll() is None, said.read_text()
                time.sleep(0.02)
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", int(found[1])), timeout=1):
                    break
                assert time.monotonic() < until, said.read_text()
                time.sleep(0.02)
            yield int(found[1])
        finally:
            program.terminate()
            program.wait(START_SECONDS)


def _run(module: str, arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """In the new process: what a shell does before it starts a program, then the program."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate((os.devnull, out, err)):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if file != number:
            os.dup2(file, number)
            os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)
    importlib.reload(crash)  # reads the environment when it is loaded
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
