"""GET and DELETE /responses/{id}, /input_items and /cancel: what accounts ask of answers that are kept for them, in the
shapes of OpenAI's Responses."""

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec import Raw, Struct
from starlette.types import Receive, Scope, Send

from farebox.background_responses import BackgroundResponses
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Progress, responses
from farebox.core.headers import HeaderList, read_request_head
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.reading import read_whole
from farebox.core.stored import StoredRow
from farebox.deadlines import Deadlines
from farebox.http.asgi import EVENT_STREAM, AsgiCall, Endpoint, send_json
from farebox.http.queries import query_pairs
from farebox.ports import Callers
from farebox.stored_responses import StoredResponses
from farebox.web.waiting import Silence, WaitingCaller

PAGE_DEFAULT, PAGE_MAX = 20, 100
"""Items of a page, as at OpenAI."""

NUMBER_MAX = 2**53


class StoredPages:
    """The endpoints. Each finds answers of the caller's own account alone."""

    def __init__(
        self,
        callers: Callers,
        stored: StoredResponses,
        background: BackgroundResponses,
        deadlines: Deadlines,
        stream_silence_seconds: float,
    ) -> None:
        self._callers = callers
        self._stored = stored
        self._background = background
        self._deadlines = deadlines
        self._silence = Silence(0, stream_silence_seconds, responses.KEEP_ALIVE)

    def routes(self) -> list[tuple[str, list[str], Endpoint]]:
        """Below a base: path, methods, endpoint."""
        return [
            ("/responses/{id}", ["GET"], self._get),
            ("/responses/{id}", ["DELETE"], self._delete),
            ("/responses/{id}/input_items", ["GET"], self._input_items),
            ("/responses/{id}/cancel", ["POST"], self._cancel),
        ]

    async def _asked(self, scope: Scope) -> tuple[Caller, str]:
        return await self._callers.identify(read_request_head(scope["headers"])), scope["path_params"]["id"]

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, response_id = await self._asked(scope)
        query = dict(query_pairs(scope))
        is_streamed = _flag("stream", query.get("stream"))
        after = query.get("starting_after")
        number = None if after is None else read_whole(after, 0, NUMBER_MAX)
        if after is not None and number is None:
            raise invalid(f"starting_after: {after[:40]!r} is not the number of an event")
        row = await self._background.find(caller.account.id, response_id)
        if not is_streamed:
            await send_json(send, row.answer, _headers(row))
            return
        call = AsgiCall(scope, receive, send)
        waiting = WaitingCaller(call, self._deadlines, self._silence)
        try:
            waiting.sending(_headers(row), streamed=True)
            following = await self._background.follow(row, number)
            call.when_gone(following.hang_up)
            await waiting.relay([*EVENT_STREAM, *_headers(row)], following.stream_to)
            await waiting.end(b"")
        except Refusal as refusal:
            if not waiting.has_begun:
                raise
            await waiting.end(responses.error_event(refusal, Progress("", "", row.created_us // 1_000_000)))
        finally:
            call.when_gone(None)
            waiting.close()

    async def _delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, response_id = await self._asked(scope)
        await self._stored.delete(caller.account.id, response_id)
        self._background.stop(caller.account.id, response_id)
        await send_json(send, msgspec.json.encode({"id": response_id, "object": "response", "deleted": True}))

    async def _cancel(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, response_id = await self._asked(scope)
        row = await self._background.cancel(caller.account.id, response_id)
        await send_json(send, row.answer, _headers(row))

    async def _input_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, response_id = await self._asked(scope)
        query = dict(query_pairs(scope))
        limit = read_whole(query.get("limit", str(PAGE_DEFAULT)), 1, PAGE_MAX)
        if limit is None:
            raise invalid(f"limit: {query['limit'][:40]!r} is not a number from 1 to {PAGE_MAX}")
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid(f"order: {order[:40]!r} is neither `asc` nor `desc`")
        items = await self._stored.input_of(caller.account.id, response_id)
        await send_json(send, _page(items, response_id, limit, query.get("after"), is_latest_first=order == "desc"))


def _headers(row: StoredRow) -> HeaderList:
    name = row.generation_id
    return [(b"x-generation-id", name.encode())] if name and name.isascii() and name.isprintable() else []


def _flag(name: str, value: str | None) -> bool:
    if value not in (None, "true", "false"):
        raise invalid(f"{name}: {value[:40]!r} is neither `true` nor `false`")
    return value == "true"


class _Item(Struct):
    id: str | None = None
    type: str = "message"
    role: str = "user"


_decode_item = msgspec.json.Decoder(_Item).decode
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


def _name_of(item: Raw, named_by: str) -> str:
    """An item's id. One that its caller gave none gets one, always the same."""
    read = decoded_or(_decode_item, item, _Item())
    return read.id or f"{_PREFIXES.get(read.type, 'item')}_{sha256(named_by.encode()).hexdigest()[:32]}"


def _listed(item: Raw, named_by: str) -> tuple[str, Raw]:
    """An item under its id, with what SDKs demand: a message's text becomes a part, and its status is told."""
    read = decoded_or(_decode_item, item, _Item())
    fields: Fields = decode_fields(item)
    name = _name_of(item, named_by)
    told: Fields = {"id": Raw(msgspec.json.encode(name)), "type": Raw(msgspec.json.encode(read.type)), **fields}
    told["id"] = Raw(msgspec.json.encode(name))
    if read.type == "message":
        told.setdefault("status", Raw(b'"completed"'))
        content = bytes(told.get("content", b"[]"))
        if content.startswith(b'"'):
            kind = b"output_text" if read.role == "assistant" else b"input_text"
            rest = b',"annotations":[]' if read.role == "assistant" else b""
            told["content"] = Raw(b'[{"type":"' + kind + b'","text":' + content + rest + b"}]")
    return name, written(told)


def _page(items: Sequence[Raw], response_id: str, limit: int, after: str | None, *, is_latest_first: bool) -> bytes:
    """Some of the items. Only these are made what is shown: there may be hundreds of thousands."""
    numbers = range(len(items))[:: -1 if is_latest_first else 1]
    if after is not None:
        named = (place for place, n in enumerate(numbers) if _name_of(items[n], f"{response_id} {n}") == after)
        place = next(named, None)
        if place is None:
            raise invalid(f"after: there is no item {after[:80]!r}")
        numbers = numbers[place + 1 :]
    page = [_listed(items[n], f"{response_id} {n}") for n in numbers[:limit]]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [item for _, item in page],
            "first_id": page[0][0] if page else None,
            "last_id": page[-1][0] if page else None,
            "has_more": len(numbers) > limit,
        }
    )
