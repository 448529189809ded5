"""The run API of the Apify platform, under /v2: what its clients, its command and its integrations call to run Actors.

Shapes: Apify's OpenAPI document of August 2026, and what the clients of each major version insist on. Another account's
run, dataset or store is as unknown as one that never was.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal
from farebox.core.headers import HeaderList, read_request_head
from farebox.core.money import parse_usd
from farebox.deadlines import Deadlines
from farebox.ports import Caller, Callers, Run, Runs, TooLong
from farebox.runs import Options, Runner
from farebox.web.asgi import JSON, Endpoint, send_body, send_start, send_whole
from farebox.web.bodies import BodyBounds, read_body
from farebox.web.items import Wanted, render
from farebox.web.platform import (
    ACTOR_NAMES,
    BUILD_ID,
    ERRORS,
    actor_object,
    build_object,
    enveloped,
    iso,
    origin_of,
    run_object,
    storage_object,
    user_id,
    user_object,
)
from farebox.web.refusals import BEGUN, guarded

WAIT_SECONDS_MAX = 60
SYNC_SECONDS_MAX = 300
LOG_POLL_SECONDS = 0.3
PAGE_MAX = 1000
UNLIMITED = 999_999_999_999
"""What the platform says as the limit where none was asked for."""


class Answered(Struct, frozen=True):
    """An answer in one piece."""

    body: bytes
    status: int = 200
    headers: HeaderList = msgspec.field(default_factory=lambda: [JSON])


class Call(Struct, frozen=True):
    """One request, its caller known."""

    scope: Scope
    receive: Receive
    caller: Caller
    query: Mapping[str, str]

    def named(self, name: str) -> str:
        value: str = self.scope["path_params"][name]
        return value

    def number(self, name: str, default: int, least: int = 0, most: int = UNLIMITED) -> int:
        """A whole number of the query. Raises Refusal 400."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
            raise Refusal(400, "invalid-value", f"{name}: a whole number from {least} to {most}, not {text[:50]!r}")
        return int(text)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.query.get(name, "").split(",") if part.strip())


Handle = Callable[[Call], Awaitable[Answered]]


class RunApi:
    """Every path of the run API, in one table."""

    def __init__(self, callers: Callers, runs: Runs, runner: Runner, bounds: BodyBounds, deadlines: Deadlines) -> None:
        self._callers = callers
        self._runs = runs
        self._runner = runner
        self._bounds = bounds
        self._deadlines = deadlines

    def routes(self) -> list[tuple[str, list[str], Endpoint]]:
        """Path, methods, endpoint."""
        of_actor: dict[str, tuple[list[str], Handle]] = {
            "": (["GET"], self._actor),
            "/runs": (["POST", "GET"], self._runs_of_actor),
            "/run-sync": (["POST", "GET"], self._run_sync),
            "/run-sync-get-dataset-items": (["POST", "GET"], self._run_sync_items),
            "/runs/last": (["GET"], self._last_run),
            "/runs/last/dataset/items": (["GET"], self._last_items),
            "/builds/default": (["GET"], self._default_build),
        }
        others: dict[str, tuple[list[str], Handle]] = {
            "/actor-runs": (["GET"], self._list),
            "/actor-runs/{id}": (["GET"], self._run),
            "/actor-runs/{id}/abort": (["POST"], self._abort),
            "/actor-runs/{id}/dataset/items": (["GET"], self._items),
            "/actor-runs/{id}/key-value-store/records/{key}": (["GET"], self._record),
            "/datasets/{id}": (["GET"], self._dataset),
            "/datasets/{id}/items": (["GET"], self._items),
            "/key-value-stores/{id}": (["GET"], self._store),
            "/key-value-stores/{id}/keys": (["GET"], self._keys),
            "/key-value-stores/{id}/records/{key}": (["GET"], self._record),
            "/request-queues/{id}": (["GET"], self._queue),
            "/actor-builds/{id}": (["GET"], self._build),
            "/users/me": (["GET"], self._me),
            "/users/{id}": (["GET"], self._user),
        }
        table = [
            (f"/v2/{actors}/{{actor}}{path}", methods, self._endpoint(self._of_actor(handle)))
            for actors in ("acts", "actors")
            for path, (methods, handle) in of_actor.items()
        ]
        table += [(f"/v2{path}", methods, self._endpoint(handle)) for path, (methods, handle) in others.items()]
        logs = guarded(self._log, ERRORS)
        return [*table, ("/v2/actor-runs/{id}/log", ["GET"], logs), ("/v2/logs/{id}", ["GET"], logs)]

    def _endpoint(self, handle: Handle) -> Endpoint:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            answered = await handle(await self._call(scope, receive))
            await send_whole(send, answered.status, answered.headers, answered.body)

        return guarded(endpoint, ERRORS)

    def _of_actor(self, handle: Handle) -> Handle:
        async def handle_known(call: Call) -> Answered:
            if call.named("actor") not in ACTOR_NAMES:
                raise Refusal(404, "record-not-found", f"Actor {call.named('actor')[:100]!r} was not found")
            return await handle(call)

        return handle_known

    async def _call(self, scope: Scope, receive: Receive) -> Call:
        """Raises Refusal 401. Here alone a token may stand in the query: these clients send it so."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        head = read_request_head(scope["headers"])
        if token := query.pop("token", ""):
            head = replace(head, tokens=(*head.tokens, token))
        if not head.tokens:
            raise Refusal(401, "token-not-provided", "Send a token, as `Authorization: Bearer` or `?token=`")
        return Call(scope, receive, await self._callers.identify(head), query)

    # Runs

    async def _begin(self, call: Call) -> Run:
        body = b""
        if call.scope["method"] == "POST":
            head = read_request_head(call.scope["headers"])
            bounds = self._bounds
            body = await read_body(
                call.scope, call.receive, head, bounds.bytes_max, bounds.seconds, self._deadlines, any_type=True
            )
        limit = call.query.get("maxTotalChargeUsd", "")
        try:
            limit_nanos = parse_usd(limit) if limit else None
        except ValueError as error:
            raise Refusal(400, "invalid-value", f"maxTotalChargeUsd: {error}") from error
        options = Options(
            call.number("timeout", 3600, most=86_400),
            call.number("memory", 1024, least=128, most=32_768),
            limit_nanos,
            origin_of(call.scope),
        )
        return await self._runner.begin(call.caller, body, options)

    async def _waited(self, call: Call, run: Run, seconds: int) -> Run:
        found = await self._runner.finished(call.caller.account.id, run.id, seconds)
        assert found is not None, run.id
        return found

    async def _runs_of_actor(self, call: Call) -> Answered:
        if call.scope["method"] == "GET":
            return await self._list(call)
        run = await self._begin(call)
        run = await self._waited(call, run, min(call.number("waitForFinish", 0), WAIT_SECONDS_MAX))
        location = (b"location", f"/v2/actor-runs/{run.id}".encode())
        return Answered(enveloped(run_object(run)), 201, [JSON, location])

    async def _finished(self, call: Call) -> Run:
        run = await self._waited(call, await self._begin(call), SYNC_SECONDS_MAX)
        if not run.is_finished:
            raise Refusal(408, "run-timeout-exceeded", f"Run {run.id} did not finish within {SYNC_SECONDS_MAX} s")
        if run.status != "SUCCEEDED":
            raise Refusal(400, "run-failed", f"Run {run.id} ended {run.status}: {run.status_message}")
        return run

    async def _run_sync(self, call: Call) -> Answered:
        run = await self._finished(call)
        record = await self._runs.record(run.store_id, call.query.get("outputRecordKey") or "OUTPUT")
        if record is None:
            return Answered(b"", 201, [])
        return Answered(record.body, 201, [(b"content-type", record.content_type.encode())])

    async def _run_sync_items(self, call: Call) -> Answered:
        return await self._rendered(call, await self._finished(call), 201)

    async def _list(self, call: Call) -> Answered:
        offset, limit = call.number("offset", 0), min(call.number("limit", PAGE_MAX), PAGE_MAX)
        desc = call.flag("desc")
        found, total = await self._runs.runs(call.caller.account.id, offset, limit, desc=desc)
        page = {"total": total, "offset": offset, "limit": limit, "desc": desc, "count": len(found)}
        return Answered(enveloped({**page, "items": [run_object(run) for run in found]}))

    async def _last(self, call: Call) -> Run:
        found, _ = await self._runs.runs(call.caller.account.id, 0, 1, desc=True)
        if not found:
            raise Refusal(404, "record-not-found", "There was no run yet")
        return found[0]

    async def _last_run(self, call: Call) -> Answered:
        return Answered(enveloped(run_object(await self._last(call))))

    async def _last_items(self, call: Call) -> Answered:
        return await self._rendered(call, await self._last(call))

    async def _own(self, call: Call, what: str) -> Run:
        """The caller's run, by its id or that of its dataset or store. Raises Refusal 404."""
        run = await self._runs.run(call.caller.account.id, call.named("id"))
        if run is None:
            raise Refusal(404, "record-not-found", f"{what} {call.named('id')[:100]!r} was not found")
        return run

    async def _run(self, call: Call) -> Answered:
        run = await self._own(call, "Actor run")
        run = await self._waited(call, run, min(call.number("waitForFinish", 0), WAIT_SECONDS_MAX))
        return Answered(enveloped(run_object(run)))

    async def _abort(self, call: Call) -> Answered:
        run = await self._own(call, "Actor run")
        await self._runner.abort(run)
        return Answered(enveloped(run_object(await self._waited(call, run, 0))))

    async def _log(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A line each, with its moment; streamed until the run has finished where that is asked for."""
        call = await self._call(scope, receive)
        run = await self._own(call, "Actor run")
        scope[BEGUN] = True
        await send_start(send, 200, [(b"content-type", b"text/plain; charset=utf-8")])
        after = 0
        while True:
            lines = await self._runs.lines(run.id, after)
            text = "".join(f"{iso(line.created_us)} {line.text}\n" for line in lines)
            if lines:
                after = lines[-1].number
                await send_body(send, text.encode(), more=True)
            elif run.is_finished or not call.flag("stream"):
                break
            else:
                await asyncio.sleep(LOG_POLL_SECONDS)
                run = await self._waited(call, run, 0)
        await send_body(send, b"")

    # What runs leave

    async def _rendered(self, call: Call, run: Run, status: int = 200) -> Answered:
        wanted = Wanted(
            call.query.get("format") or "json",
            call.names("fields"),
            call.names("omit"),
            skip_empty=call.flag("clean") or call.flag("skipEmpty"),
            skip_hidden=call.flag("clean") or call.flag("skipHidden"),
            bom=call.query.get("bom", "").lower() in ("", "1", "true"),
        )
        offset, limit = call.number("offset", 0), call.number("limit", UNLIMITED)
        desc = call.flag("desc")
        try:
            items, total = await self._runs.items(run.dataset_id, offset, limit, desc=desc)
        except TooLong as error:
            raise Refusal(400, "invalid-value", f"limit: ask for fewer items at once: these are {error}") from error
        body, content_type = render(items, wanted)
        paging = {"offset": offset, "limit": limit, "count": len(items), "total": total, "desc": str(desc).lower()}
        headers = [(f"x-apify-pagination-{name}".encode(), str(value).encode()) for name, value in paging.items()]
        return Answered(body, status, [(b"content-type", content_type), *headers])

    async def _items(self, call: Call) -> Answered:
        return await self._rendered(call, await self._own(call, "Dataset"))

    async def _dataset(self, call: Call) -> Answered:
        run = await self._own(call, "Dataset")
        total = await self._runs.item_count(run.dataset_id)
        return Answered(enveloped({**storage_object(run, run.dataset_id), "itemCount": total, "cleanItemCount": total}))

    async def _store(self, call: Call) -> Answered:
        run = await self._own(call, "Key-value store")
        return Answered(enveloped(storage_object(run, run.store_id)))

    async def _keys(self, call: Call) -> Answered:
        run = await self._own(call, "Key-value store")
        limit = call.number("limit", PAGE_MAX, most=PAGE_MAX)
        after = call.query.get("exclusiveStartKey", "")
        records = [record for record in await self._runs.records(run.store_id) if record.key > after]
        shown = [{"key": record.key, "size": len(record.body)} for record in records[:limit]]
        is_more = len(records) > limit
        following = shown[-1]["key"] if is_more and shown else None
        page = {"items": shown, "count": len(shown), "limit": limit, "exclusiveStartKey": after or None}
        return Answered(enveloped({**page, "isTruncated": is_more, "nextExclusiveStartKey": following}))

    async def _record(self, call: Call) -> Answered:
        run = await self._own(call, "Key-value store")
        record = await self._runs.record(run.store_id, call.named("key"))
        if record is None and call.named("key") == "INPUT":
            return Answered(run.input or b"{}")
        if record is None:
            raise Refusal(404, "record-not-found", f"There is no record {call.named('key')[:100]!r}")
        return Answered(record.body, 200, [(b"content-type", record.content_type.encode())])

    async def _queue(self, call: Call) -> Answered:
        runs, _ = await self._runs.runs(call.caller.account.id, 0, PAGE_MAX, desc=True)
        run = next((run for run in runs if run.queue_id == call.named("id")), None)
        if run is None:
            raise Refusal(404, "record-not-found", f"Request queue {call.named('id')[:100]!r} was not found")
        counts = {
            "totalRequestCount": 0,
            "handledRequestCount": 0,
            "pendingRequestCount": 0,
            "hadMultipleClients": False,
        }
        return Answered(enveloped({**storage_object(run, run.queue_id), **counts}))

    # Who and what

    async def _actor(self, call: Call) -> Answered:
        return Answered(enveloped(actor_object(call.caller.account)))

    async def _default_build(self, call: Call) -> Answered:
        return Answered(enveloped(build_object(call.caller.account)))

    async def _build(self, call: Call) -> Answered:
        if call.named("id") != BUILD_ID:
            raise Refusal(404, "record-not-found", f"Build {call.named('id')[:100]!r} was not found")
        return await self._default_build(call)

    async def _me(self, call: Call) -> Answered:
        return Answered(enveloped(user_object(call.caller)))

    async def _user(self, call: Call) -> Answered:
        account = call.caller.account
        if call.named("id") not in (user_id(account.id), account.name):
            raise Refusal(404, "record-not-found", f"User {call.named('id')[:100]!r} was not found")
        return Answered(enveloped({"id": user_id(account.id), "username": account.name, "profile": {}}))
