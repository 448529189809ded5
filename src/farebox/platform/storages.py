"""What runs leave, over the run API, read and written: items of datasets, records of key-value stores, and
empty request queues."""

import re
from urllib.parse import quote

from msgspec.structs import replace

from farebox.core.errors import Refusal, unknown
from farebox.core.legible import decode_fields, decode_list
from farebox.core.reading import UNREADABLE
from farebox.core.runs import Record, Run
from farebox.platform.calls import ATTACHED, PAGE_MAX, Answered, Call, made, shown
from farebox.platform.documents import storage_object, wrong
from farebox.platform.items import Wanted, render, wanted
from farebox.platform.store import TooLong

PUSHED_BYTES_MAX = 9 * 2**20
"""The longest body of items, as on Apify's platform."""

PUSHED_MAX = 50_000
"""The most items in one: they are written in one transaction, for which orders wait."""

_RECORD_KEY = re.compile(r"[a-zA-Z0-9!\-_.'()]{1,256}")


async def dataset(call: Call, run: Run) -> Answered:
    total = await call.api.runs.item_count(run.dataset_id)
    return shown({**storage_object(run, run.dataset_id), "itemCount": total, "cleanItemCount": total})


async def items(call: Call, run: Run) -> Answered:
    return await items_as(wanted(call), call, run)


async def items_as(asked: Wanted, call: Call, run: Run, status: int = 200) -> Answered:
    """A run's items, as they are `asked` for. Raises Refusal 400."""
    try:
        found, total = await call.api.runs.items(run.dataset_id, asked.offset, asked.limit, desc=asked.desc)
    except TooLong as error:
        raise wrong("limit", f"ask for fewer items at once: these are {error}") from error
    body, content_type = await call.api.shaping.do(lambda: render(found, asked))
    paging = {
        "offset": asked.offset,
        "limit": asked.limit,
        "count": len(found),
        "total": total,
        "desc": str(asked.desc).lower(),
    }
    headers = [(f"x-apify-pagination-{name}".encode(), str(value).encode()) for name, value in paging.items()]
    kept = [ATTACHED] if asked.attachment else []
    return Answered(body, status, [(b"content-type", content_type), *headers, *kept])


async def store(_: Call, run: Run) -> Answered:
    return shown(storage_object(run, run.store_id))


async def keys(call: Call, run: Run) -> Answered:
    limit = call.limit(PAGE_MAX)
    after, prefix = call.query.get("exclusiveStartKey", ""), call.query.get("prefix", "")
    records = await call.api.runs.records(run.store_id, after, prefix, limit + 1)
    base = f"{call.api.runner.public_url}/v2/key-value-stores/{run.store_id}/records"
    listed = [{"key": key, "size": size, "recordPublicUrl": f"{base}/{quote(key)}"} for key, size in records[:limit]]
    is_more = len(records) > limit
    following = records[limit - 1][0] if is_more else None
    page = {"items": listed, "count": len(listed), "limit": limit, "exclusiveStartKey": after or None}
    return shown({**page, "isTruncated": is_more, "nextExclusiveStartKey": following})


async def record(call: Call, run: Run) -> Answered:
    found = await find_record(call, run, call.named("key"))
    if found is None:
        raise unknown(f"There is no record {call.named('key')[:100]!r}")
    return replace(found, headers=[*found.headers, ATTACHED]) if call.flag("attachment") else found


async def find_record(call: Call, run: Run, key: str) -> Answered | None:
    """A record of a run's store; None where there is none."""
    found = await call.api.runs.record(run.store_id, key)
    if found is not None:
        return Answered(found.body, 200, [(b"content-type", found.content_type.encode())])
    return Answered(await call.api.runs.input_of(run.id) or b"{}") if key == "INPUT" else None


async def queue(_: Call, run: Run) -> Answered:
    counts = dict.fromkeys(("totalRequestCount", "handledRequestCount", "pendingRequestCount"), 0)
    return shown({**storage_object(run, run.queue_id), **counts, "hadMultipleClients": False})


async def push(call: Call, run: Run) -> Answered:
    body = (await call.json(PUSHED_BYTES_MAX)).strip()
    try:
        found = [bytes(item) for item in decode_list(body)] if body.startswith(b"[") else [body]
        if len(found) > PUSHED_MAX:
            raise Refusal(400, "invalid-value", f"{len(found)} items; at most {PUSHED_MAX} are taken at once")
        for item in found:
            decode_fields(item)
    except UNREADABLE as error:
        raise Refusal(400, "invalid-value", "The body is to be an object, or a list of objects") from error
    await call.api.runs.append(run.dataset_id, found)
    return made(f"/v2/datasets/{run.dataset_id}/items")


async def put(call: Call, run: Run) -> Answered:
    key = call.named("key")
    if not _RECORD_KEY.fullmatch(key):
        raise Refusal(400, "invalid-record-key", f"{key[:100]!r}: letters, digits and !-_.'(), 256 at most")
    content_type = call.head.first(b"content-type").decode("latin-1") or "application/octet-stream"
    await call.api.runs.put_record(run.store_id, Record(key, content_type, await call.body()))
    return made(f"/v2/key-value-stores/{run.store_id}/records/{key}")
