"""A run on one's own machine: its storages as the platform's tools lay them out in a folder, and the charging log."""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from farebox.core.runs import ItemOutcome, Record, read_outcome
from farebox.platform.priced_events import PRICED_EVENT

_SUFFIXES = {"application/json": ".json", "text/plain": ".txt", "text/html": ".html"}
_NUMBERED = re.compile(r"\d{9}\.json")


class LocalStorage:
    """The default dataset and key-value store in `folder`, as `apify run` keeps them."""

    def __init__(self, folder: Path) -> None:
        self._items = folder / "datasets" / "default"
        self._records = folder / "key_value_stores" / "default"

    async def record(self, key: str) -> bytes | None:
        paths = [self._records / f"{key}{suffix}" for suffix in ("", *_SUFFIXES.values())]
        return next((path.read_bytes() for path in paths if path.is_file()), None)

    async def put_record(self, record: Record) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        suffix = _SUFFIXES.get(record.content_type.partition(";")[0], "")
        _put(self._records / f"{record.key}{suffix}", record.body)

    async def push(self, item: bytes) -> None:
        _add_item(self._items, item)

    async def outcomes(self) -> list[ItemOutcome]:
        read = (read_outcome(path.read_bytes()) for path in _numbered(self._items))
        return [outcome for outcome in read if outcome is not None]

    async def say(self, message: str, *, is_last: bool) -> None:
        """Nowhere to say it: the log says the same."""


class ChargingLog:
    """The Biller of a run on one's own machine, where nobody pays: it writes the charges into a dataset beside the
    others, as Apify's SDK does."""

    def __init__(self, folder: Path, event_price_usd: str) -> None:
        self._items = folder / "datasets" / "charging-log"
        self._price = msgspec.Raw(event_price_usd.encode())
        charged = (msgspec.json.decode(path.read_bytes()) for path in _numbered(self._items))
        self._keys = {str(item["idempotency_key"]): int(item["charged_count"]) for item in charged}

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        if key in self._keys:
            return
        item = {
            "event_name": PRICED_EVENT,
            "event_title": "OpenRouter usage",
            "event_price_usd": self._price,
            "charged_count": count,
            "idempotency_key": key,
            "timestamp": datetime.now(UTC).isoformat(),
        }
        _add_item(self._items, msgspec.json.encode(item))
        self._keys[key] = count

    async def counted(self) -> int:
        return sum(self._keys.values())


def _add_item(folder: Path, item: bytes) -> None:
    """Add an item behind the others, under the next number."""
    folder.mkdir(parents=True, exist_ok=True)
    last = max((int(path.stem) for path in _numbered(folder)), default=0)
    _put(folder / f"{last + 1:09}.json", item)


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if _NUMBERED.fullmatch(path.name))


def _put(path: Path, body: bytes) -> None:
    """Write a file whole, or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(body)
    draft.replace(path)
