"""The run API of the Apify platform, under /v2: what its clients, its command and its integrations call to run Actors.

Shapes: Apify's OpenAPI document of August 2026, and what the clients of each major version insist on. Another account's
run, dataset or store is as unknown as one that never was.
"""

import asyncio
from urllib.parse import parse_qsl

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal
from farebox.core.headers import read_request_head
from farebox.core.money import parse_usd
from farebox.deadlines import Deadlines
from farebox.ports import Callers, Run, Runs, TooLong
from farebox.run_events import RunEvents
from farebox.runs import Options, Runner
from farebox.web.actor_calls import ActorCalls
from farebox.web.asgi import JSON, Endpoint, send_body, send_start, send_whole
from farebox.web.bodies import BodyBounds
from farebox.web.calls import UNLIMITED, Answered, Call, Handle, own_run
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


class RunApi:
    """Every path of the run API, in one table."""

    def __init__(
        self,
        callers: Callers,
        runs: Runs,
        runner: Runner,
        events: RunEvents,
        bounds: BodyBounds,
        deadlines: Deadlines,
    ) -> None:
        self._callers = callers
        self._runs = runs
        self._actor_calls = ActorCalls(runs, events)
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
        for path, (method, handle) in self._actor_calls.handles().items():
            methods, reading = others.get(path, ([], None))
            others[path] = [*methods, method], _by_method(method, handle, reading)
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
        caller = await self._callers.identify(head)
        return Call(scope, receive, head, caller, query, self._bounds, self._deadlines)

    # Runs

    async def _begin(self, call: Call) -> Run:
        body = b""
        if call.scope["method"] == "POST":
            body = await call.body(any_type=True)
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

    async def _run(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Actor run")
        run = await self._waited(call, run, min(call.number("waitForFinish", 0), WAIT_SECONDS_MAX))
        return Answered(enveloped(run_object(run, await self._runs.charged_events(run.id))))

    async def _abort(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Actor run")
        await self._runner.abort(run)
        return Answered(enveloped(run_object(await self._waited(call, run, 0))))

    async def _log(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A line each, with its moment; streamed until the run has finished where that is asked for."""
        call = await self._call(scope, receive)
        run = await own_run(self._runs, call, "Actor run")
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
        return await self._rendered(call, await own_run(self._runs, call, "Dataset"))

    async def _dataset(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Dataset")
        total = await self._runs.item_count(run.dataset_id)
        return Answered(enveloped({**storage_object(run, run.dataset_id), "itemCount": total, "cleanItemCount": total}))

    async def _store(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
        return Answered(enveloped(storage_object(run, run.store_id)))

    async def _keys(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
        limit = call.number("limit", PAGE_MAX, most=PAGE_MAX)
        after = call.query.get("exclusiveStartKey", "")
        records = [record for record in await self._runs.records(run.store_id) if record.key > after]
        shown = [{"key": record.key, "size": len(record.body)} for record in records[:limit]]
        is_more = len(records) > limit
        following = shown[-1]["key"] if is_more and shown else None
        page = {"items": shown, "count": len(shown), "limit": limit, "exclusiveStartKey": after or None}
        return Answered(enveloped({**page, "isTruncated": is_more, "nextExclusiveStartKey": following}))

    async def _record(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
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


def _by_method(method: str, handle: Handle, other: Handle | None) -> Handle:
    """One path, two things to do."""

    async def either(call: Call) -> Answered:
        return await (handle if other is None or call.scope["method"] == method else other)(call)

    return either
