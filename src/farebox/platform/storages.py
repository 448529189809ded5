"""What runs leave, over the run API: items of datasets, records of key-value stores, and empty request queues."""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from msgspec.structs import replace

from farebox.core.errors import Refusal
from farebox.core.runs import Run
from farebox.platform.calls import ATTACHED, PAGE_MAX, Answered, Call, Handle, own_run
from farebox.platform.documents import enveloped, storage_object
from farebox.platform.items import Wanted, render, wanted
from farebox.platform.store import SqlRuns, TooLong


class Storages:
    """The calls that read storages. `public_url` is where callers reach this gateway."""

    def __init__(self, runs: SqlRuns, public_url: str) -> None:
        self._runs = runs
        self._public_url = public_url

    def of_run(self) -> Mapping[str, Handle]:
        """Handles by their path below a run's own."""
        return MappingProxyType(
            {
                "/dataset": self._dataset,
                "/dataset/items": self._items,
                "/key-value-store": self._store,
                "/key-value-store/keys": self._keys,
                "/key-value-store/records/{key}": self._record,
                "/request-queue": self._queue,
            }
        )

    def handles(self) -> Mapping[str, Handle]:
        """By method and path, as lines of PARAMETERS."""
        return MappingProxyType(
            {
                "GET /datasets/{id}": self._dataset,
                "GET /datasets/{id}/items": self._items,
                "GET /key-value-stores/{id}": self._store,
                "GET /key-value-stores/{id}/keys": self._keys,
                "GET /key-value-stores/{id}/records/{key}": self._record,
                "GET /request-queues/{id}": self._queue,
            }
        )

    async def show(self, asked: Wanted, run: Run, status: int = 200) -> Answered:
        """A run's items, as they are `asked` for. Raises Refusal 400."""
        try:
            items, total = await self._runs.items(run.dataset_id, asked.offset, asked.limit, desc=asked.desc)
        except TooLong as error:
            raise Refusal(400, "invalid-value", f"limit: ask for fewer items at once: these are {error}") from error
        body, content_type = render(items, asked)
        paging = {
            "offset": asked.offset,
            "limit": asked.limit,
            "count": len(items),
            "total": total,
            "desc": str(asked.desc).lower(),
        }
        headers = [(f"x-apify-pagination-{name}".encode(), str(value).encode()) for name, value in paging.items()]
        kept = [ATTACHED] if asked.attachment else []
        return Answered(body, status, [(b"content-type", content_type), *headers, *kept])

    async def record(self, run: Run, key: str) -> Answered | None:
        """A record of a run's store; None where there is none."""
        record = await self._runs.record(run.store_id, key)
        if record is not None:
            return Answered(record.body, 200, [(b"content-type", record.content_type.encode())])
        return Answered(run.input or b"{}") if key == "INPUT" else None

    async def _items(self, call: Call) -> Answered:
        return await self.show(wanted(call), await own_run(self._runs, call, "Dataset"))

    async def _dataset(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Dataset")
        total = await self._runs.item_count(run.dataset_id)
        return Answered(enveloped({**storage_object(run, run.dataset_id), "itemCount": total, "cleanItemCount": total}))

    async def _store(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
        return Answered(enveloped(storage_object(run, run.store_id)))

    async def _keys(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
        limit = call.limit(PAGE_MAX)
        after, prefix = call.query.get("exclusiveStartKey", ""), call.query.get("prefix", "")
        records = [
            record
            for record in await self._runs.records(run.store_id)
            if record.key > after and record.key.startswith(prefix)
        ]
        base = f"{self._public_url}/v2/key-value-stores/{run.store_id}/records"
        shown = [
            {"key": record.key, "size": len(record.body), "recordPublicUrl": f"{base}/{quote(record.key)}"}
            for record in records[:limit]
        ]
        is_more = len(records) > limit
        following = records[limit - 1].key if is_more else None
        page = {"items": shown, "count": len(shown), "limit": limit, "exclusiveStartKey": after or None}
        return Answered(enveloped({**page, "isTruncated": is_more, "nextExclusiveStartKey": following}))

    async def _record(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
        found = await self.record(run, call.named("key"))
        if found is None:
            raise Refusal(404, "record-not-found", f"There is no record {call.named('key')[:100]!r}")
        return replace(found, headers=[*found.headers, ATTACHED]) if call.flag("attachment") else found

    async def _queue(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Request queue")
        counts = {
            "totalRequestCount": 0,
            "handledRequestCount": 0,
            "pendingRequestCount": 0,
            "hadMultipleClients": False,
        }
        return Answered(enveloped({**storage_object(run, run.queue_id), **counts}))
