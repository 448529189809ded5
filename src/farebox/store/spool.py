"""Settlements that the books could not take, on this machine's disk until they can: what a node knows of an answer
must not go with it while its database is away.

A process writes a file of its own and keeps it locked; what one left that died is taken over by whoever starts next.
"""

import asyncio
import logging
import os
import threading
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from farebox.core.books import KeptAnswer, Settle
from farebox.core.reading import UNREADABLE
from farebox.core.usage import Cost, Nothing, Unknown, Verdict
from farebox.store.locks import is_free, take
from farebox.store.threads import Worker

log = logging.getLogger("farebox")

ADD_SECONDS = 5.0
"""How long a settlement waits for this disk; it is kept in memory in any case."""

ROWS_MAX = 50_000
"""As many as orders end while a database is away for an hour or so; more are kept in memory alone."""


class _Row(Struct):
    """A settlement, its verdict in words."""

    hold_id: str
    verdict: Literal["cost", "nothing", "unknown"]
    said: str
    created_us: int
    generation_id: str | None
    served_model: str | None
    prompt_tokens: int | None
    answer_tokens: int | None
    answer: KeptAnswer | None


_decode_row = msgspec.json.Decoder(_Row).decode


class Spool:
    """One process's file in `folder`, made when it is first needed."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._own = folder / worker
        self._thread = Worker("farebox-spool")
        # What is cleared may be being written: nothing is written to a closed file.
        self._lock = threading.Lock()
        self._file: int | None = None
        self._rows = 0

    async def add(self, settle: Settle) -> None:
        """Durable when this returns; or not, which the log says, where this disk fails, too."""
        if self._rows >= ROWS_MAX:
            log.error("%d settlements are kept on disk, which is all; this one is kept in memory alone", ROWS_MAX)
            return
        self._rows += 1
        line = msgspec.json.encode(_row(settle)) + b"\n"
        try:
            async with asyncio.timeout(ADD_SECONDS):
                await self._thread.do(lambda: self._write(line))
        except OSError as error:
            log.error("a settlement is kept in memory alone: %s", str(error) or "the disk does not answer")

    def _write(self, line: bytes) -> None:
        with self._lock:
            if self._file is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = take(self._own, os.O_APPEND | os.O_WRONLY)
            os.write(self._file, line)
            os.fsync(self._file)

    def clear(self) -> None:
        """All that was in it is in the books."""
        with self._lock:
            self._rows = 0
            if self._file is not None:
                self._own.unlink(missing_ok=True)
                os.close(self._file)
                self._file = None

    def left_behind(self) -> list[tuple[str, list[Settle]]]:
        paths = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [(path.name, _read(path)) for path in paths if path != self._own and is_free(path)]

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


def _read(path: Path) -> list[Settle]:
    """A last line that was cut off was never relied on."""
    settles: list[Settle] = []
    if not path.exists():
        return settles  # another process was quicker
    for line in path.read_bytes().splitlines():
        try:
            settles.append(_settle(_decode_row(line)))
        except UNREADABLE:
            log.error("%s has a line that is no settlement", path)
    return settles


def _row(settle: Settle) -> _Row:
    match settle.verdict:
        case Cost(amount):
            verdict: tuple[Literal["cost", "nothing", "unknown"], str] = "cost", str(amount)
        case Nothing():
            verdict = "nothing", ""
        case Unknown(reason):
            verdict = "unknown", reason
    return _Row(
        settle.hold_id,
        *verdict,
        settle.created_us,
        settle.generation_id,
        settle.served_model,
        settle.prompt_tokens,
        settle.answer_tokens,
        settle.answer,
    )


def _settle(row: _Row) -> Settle:
    verdict: Verdict = Nothing()
    if row.verdict == "cost":
        verdict = Cost(Decimal(row.said))
    elif row.verdict == "unknown":
        verdict = Unknown(row.said)
    return Settle(
        row.hold_id,
        verdict,
        row.created_us,
        row.generation_id,
        row.served_model,
        row.prompt_tokens,
        row.answer_tokens,
        row.answer,
    )
