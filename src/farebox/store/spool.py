"""Settlements that the books could not take, on this machine's disk until they can: what a node knows of an answer
must not go with it while its database is away.

A process writes a file of its own and keeps it locked; what one left that died is taken over by whoever starts next.
"""

import asyncio
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from farebox.core.books import Settle
from farebox.core.reading import UNREADABLE
from farebox.store.locks import LockedFile, is_free
from farebox.store.threads import Worker

log = logging.getLogger("farebox")

ADD_SECONDS = 5.0
"""How long a settlement waits for this disk; it is kept in memory in any case."""

BEGINS = b'{"hold_id":'
"""How each line begins; what begins otherwise is none of ours."""

ROWS_MAX = 50_000
"""As many as orders end while a database is away for an hour or so; more are kept in memory alone."""


class Spool:
    """One process's file in `folder`, made when it is first needed."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._worker = worker
        self._thread = Worker("farebox-spool")
        # What is cleared may be being written: nothing is written to a closed file.
        self._lock = threading.Lock()
        self._file: LockedFile | None = None
        self._rows = 0
        self._left_alone: set[str] = set()
        self._not_whole: set[str] = set()

    async def add(self, settle: Settle) -> None:
        """Durable when this returns; or not, which the log says, where this disk fails, too."""
        if self._rows >= ROWS_MAX:
            log.error("%d settlements are kept on disk, which is all; this one is kept in memory alone", ROWS_MAX)
            return
        self._rows += 1
        line = msgspec.json.encode(settle) + b"\n"
        try:
            async with asyncio.timeout(ADD_SECONDS):
                await self._thread.do(lambda: self._write(line))
        except OSError as error:
            log.error("a settlement is kept in memory alone: %s", str(error) or "the disk does not answer")

    def _write(self, line: bytes) -> None:
        with self._lock:
            if self._file is None:
                self._file = LockedFile(self._folder, self._worker, os.O_APPEND | os.O_WRONLY)
            file = self._file.descriptor
            before = os.fstat(file).st_size
            try:
                while line:
                    line = line[os.write(file, line) :]
                os.fsync(file)
            except OSError:
                # A part of it would make the next one unreadable, too.
                os.ftruncate(file, before)
                raise

    def clear(self) -> None:
        """All that was in it is in the books."""
        with self._lock:
            self._rows = 0
            if self._file is not None:
                self._file.release()
                self._file = None

    def left_behind(self) -> list[tuple[str, list[Settle]]]:
        """What else is in the folder is left alone, and told of once."""
        found: list[tuple[str, list[Settle]]] = []
        for path in sorted(self._folder.glob("[!.]*")):
            if path.name == self._worker or path.name in self._left_alone:
                continue
            try:
                if path.is_file() and is_free(path):
                    found += self._read(path)
            except FileNotFoundError:
                pass  # another process was quicker
            except OSError as error:
                self._leave_alone(path, f"cannot be read: {error.strerror}")
        return found

    def _read(self, path: Path) -> list[tuple[str, list[Settle]]]:
        with path.open("rb") as file:
            begins = file.read(len(BEGINS))
            if not BEGINS.startswith(begins):
                self._leave_alone(path, "has none")
                return []
            *lines, rest = (begins + file.read()).split(b"\n")
        settles: list[Settle] = []
        for line in lines:
            try:
                settles.append(_settle(line))
            except UNREADABLE:
                if path.name not in self._not_whole:
                    log.error("%s has a line that is no settlement; the file stays there", path)
                self._not_whole.add(path.name)
        # A last line that was cut off was never relied on.
        with suppress(*UNREADABLE):
            settles.append(_settle(rest))
        return [(path.name, settles)]

    def _leave_alone(self, path: Path, why: str) -> None:
        self._left_alone.add(path.name)
        log.warning("%s is in the folder of settlements and %s; it is left alone", path, why)

    def remove(self, name: str) -> None:
        if name in self._not_whole:
            self._left_alone.add(name)
        else:
            (self._folder / name).unlink(missing_ok=True)


def _settle(line: bytes) -> Settle:
    row = msgspec.json.decode(line, type=dict[str, object])
    if isinstance(tag := row.get("verdict"), str):
        # Earlier versions wrote the verdict's tag, and beside it what the verdict says.
        said = row.get("said")
        row["verdict"] = {"type": tag, "amount": said, "reason": said}
    return msgspec.convert(row, Settle)
