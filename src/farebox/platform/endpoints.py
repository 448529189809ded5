"""The run API of Apify's platform, under /v2: what its clients, its CLI and its integrations call to run Actors.

Shapes: Apify's OpenAPI document of August 2026, and what the clients of each major version insist on. Another
account's run, dataset or store is answered like one that does not exist.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import get_args

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.core.errors import Refusal
from farebox.core.headers import read_request_head
from farebox.core.money import parse_usd
from farebox.core.runs import Run, RunFilter, RunStatus
from farebox.http.asgi import JSON, Endpoint, send_body, send_start, send_whole
from farebox.http.bodies import BodyReader
from farebox.http.queries import query_pairs
from farebox.http.refusals import guarded
from farebox.platform.actor_calls import ActorCalls
from farebox.platform.calls import ATTACHED, PAGE_MAX, Answered, Call, Handle, Streamed, own_run
from farebox.platform.documents import (
    ACTOR_NAMES,
    BUILD_ID,
    ERRORS,
    actor_object,
    build_object,
    enveloped,
    origin_of,
    run_object,
    user_id,
    user_object,
)
from farebox.platform.items import wanted
from farebox.platform.parameters import check
from farebox.platform.priced_events import PricedEvents
from farebox.platform.runs import Options, Runner
from farebox.platform.storages import Storages
from farebox.platform.store import SqlRuns
from farebox.ports import Callers

WAIT_SECONDS_MAX = 60
SYNC_SECONDS_MAX = 300
TIMEOUT_SECONDS_MAX = 86_400
MEMORY_MBYTES = (128, 32_768)
LOG_POLL_SECONDS = 0.3

_STATUSES = get_args(RunStatus)
_MILLISECOND_US = 1000

_NOT_PRINTED = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""Escape sequences of terminals, and control characters."""


class RunApi:
    """Every path of the run API, in one table. `runner` carries the runs through."""

    def __init__(
        self, callers: Callers, runs: SqlRuns, runner: Runner, events: PricedEvents, bodies: BodyReader
    ) -> None:
        self._callers = callers
        self._runs = runs
        self._actor_calls = ActorCalls(runs, events)
        self._storages = Storages(runs, runner.public_url)
        self.runner = runner
        self._bodies = bodies

    def routes(self) -> list[tuple[str, list[str], Endpoint]]:
        """Each path with its methods and its endpoint."""
        by_path: dict[str, dict[str, Handle]] = {}
        for line, handle in self._handles().items():
            method, path = line.split(" ")
            by_path.setdefault(path, {})[method] = handle
        table: list[tuple[str, list[str], Endpoint]] = []
        for path, handles in by_path.items():
            endpoint = self._endpoint(path, handles)
            spellings = [path, path.replace("/actors/{actor}", "/acts/{actor}")]
            table += [(f"/v2{each}", list(handles), endpoint) for each in dict.fromkeys(spellings)]
        return table

    def _handles(self) -> dict[str, Handle]:
        """By method and path, as lines of PARAMETERS."""
        of_run: dict[str, Handle] = {"": self._run, "/log": self._log, **self._storages.of_run()}
        of_actor: dict[str, Handle] = {
            "GET ": self._actor,
            "POST /runs": self._start,
            "GET /runs": self._list,
            "POST /run-sync": self._run_sync,
            "GET /run-sync": self._run_sync,
            "POST /run-sync-get-dataset-items": self._run_sync_items,
            "GET /run-sync-get-dataset-items": self._run_sync_items,
            "GET /builds/default": self._default_build,
            **{f"GET /runs/last{path}": self._of_last(handle) for path, handle in of_run.items()},
        }
        return {
            **{line.replace(" ", " /actors/{actor}"): self._of_actor(handle) for line, handle in of_actor.items()},
            **{f"GET /actor-runs/{{id}}{path}": handle for path, handle in of_run.items()},
            **self._storages.handles(),
            **self._actor_calls.handles(),
            "GET /actor-runs": self._list,
            "POST /actor-runs/{id}/abort": self._abort,
            "GET /logs/{id}": self._log,
            "GET /actor-builds/{id}": self._build,
            "GET /users/me": self._me,
            "GET /users/{id}": self._user,
        }

    def _endpoint(self, path: str, handles: dict[str, Handle]) -> Endpoint:
        """The endpoint of a path; `handles` are by method."""

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            call = await self._call(scope, receive)
            check(f"{method} {path}", call.query)
            answered = await handles[method](call)
            if isinstance(answered, Answered):
                await send_whole(send, answered.status, answered.headers, answered.body)
                return
            await send_start(send, 200, answered.headers)
            async with aclosing(answered.pieces) as pieces:
                async for piece in pieces:
                    await send_body(send, piece, more=True)
            await send_body(send, b"")

        return guarded(endpoint, ERRORS)

    def _of_actor(self, handle: Handle) -> Handle:
        async def handle_known(call: Call) -> Answered | Streamed:
            if call.named("actor") not in ACTOR_NAMES:
                raise Refusal(404, "record-not-found", f"Actor {call.named('actor')[:100]!r} was not found")
            return await handle(call)

        return handle_known

    def _of_last(self, handle: Handle) -> Handle:
        """The same for the caller's last run among those with the status and the origin that are asked for."""

        async def handle_last(call: Call) -> Answered | Streamed:
            found, _ = await self._runs.runs(call.caller.account.id, 0, 1, desc=True, which=_which(call))
            if not found:
                raise Refusal(404, "record-not-found", "There was no such run yet")
            call.scope["path_params"]["id"] = found[0].id
            return await handle(call)

        return handle_last

    async def _call(self, scope: Scope, receive: Receive) -> Call:
        """The call that a request makes. Only in this API may a token stand in the query: Apify's clients send it so.
        Raises Refusal 401."""
        query: dict[str, str] = {}
        for name, value in query_pairs(scope):
            # A list is written with commas, or name by name.
            query[name] = f"{query[name]},{value}" if name in query else value
        head = read_request_head(scope["headers"])
        if token := query.pop("token", ""):
            head = replace(head, tokens=(*head.tokens, token))
        if not head.tokens:
            raise Refusal(401, "token-not-provided", "Send a token, as `Authorization: Bearer` or `?token=`")
        caller = await self._callers.identify(head)
        return Call(scope, receive, head, caller, query, self._bodies)

    # Runs

    def _options(self, call: Call) -> Options:
        """What a call says beside a run's input. Raises Refusal 400."""
        limit = call.query.get("maxTotalChargeUsd", "")
        try:
            limit_nanos = parse_usd(limit) if limit else None
        except ValueError as error:
            raise Refusal(400, "invalid-value", f"maxTotalChargeUsd: {error}") from error
        return Options(
            call.number("timeout", 3600, most=TIMEOUT_SECONDS_MAX),
            call.number("memory", 1024, *MEMORY_MBYTES),
            limit_nanos,
            origin_of(call.scope),
        )

    async def _begin(self, call: Call) -> Run:
        options = self._options(call)
        body = await call.body() if call.scope["method"] == "POST" else b""
        return await self.runner.begin(call.caller, body, options)

    async def _waited(self, call: Call, run: Run, seconds: int) -> Run:
        found = await self.runner.finished(call.caller.account.id, run.id, seconds)
        assert found is not None, run.id
        return found

    async def _start(self, call: Call) -> Answered:
        seconds = _seconds(call)  # before anything is begun
        run = await self._waited(call, await self._begin(call), seconds)
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
        found = await self._storages.record(run, call.query.get("outputRecordKey") or "OUTPUT")
        return Answered(b"", 201, []) if found is None else replace(found, status=201)

    async def _run_sync_items(self, call: Call) -> Answered:
        asked = wanted(call)  # before anything is begun
        return await self._storages.show(asked, await self._finished(call), 201)

    async def _list(self, call: Call) -> Answered:
        offset, limit, desc = call.number("offset", 0), call.limit(PAGE_MAX), call.flag("desc")
        found, total = await self._runs.runs(call.caller.account.id, offset, limit, desc=desc, which=_which(call))
        page = {"total": total, "offset": offset, "limit": limit, "desc": desc, "count": len(found)}
        return Answered(enveloped({**page, "items": [run_object(run) for run in found]}))

    async def _run(self, call: Call) -> Answered:
        run = await self._waited(call, await own_run(self._runs, call, "Actor run"), _seconds(call))
        return Answered(enveloped(run_object(run, await self._runs.billed_events(run.id))))

    async def _abort(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Actor run")
        await self.runner.abort(run)
        return Answered(enveloped(run_object(await self._waited(call, run, 0))))

    async def _log(self, call: Call) -> Streamed:
        """The log: lines with their moments; with `stream`, as they come until the run has finished."""
        run = await own_run(self._runs, call, "Actor run")
        kept = [ATTACHED] if call.flag("download") else []
        lines = self._lines(call, run, is_streamed=call.flag("stream"), is_raw=call.flag("raw"))
        return Streamed(lines, [(b"content-type", b"text/plain; charset=utf-8"), *kept])

    async def _lines(self, call: Call, run: Run, *, is_streamed: bool, is_raw: bool) -> AsyncGenerator[bytes]:
        after = 0
        while True:
            lines = await self._runs.lines(run.id, after)
            text = "".join(f"{clock.iso(line.created_us)} {line.text}\n" for line in lines)
            if lines:
                after = lines[-1].number
                yield (text if is_raw else _NOT_PRINTED.sub("", text)).encode()
            elif run.is_finished or not is_streamed:
                return
            else:
                await asyncio.sleep(LOG_POLL_SECONDS)
                run = await self._waited(call, run, 0)

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


def _seconds(call: Call) -> int:
    """How long a run is waited for. Raises Refusal 400."""
    return min(call.number("waitForFinish", 0), WAIT_SECONDS_MAX)


def _which(call: Call) -> RunFilter:
    """Which runs are asked for. Raises Refusal 400."""
    statuses = call.names("status")
    if strange := next((status for status in statuses if status not in _STATUSES), None):
        raise Refusal(400, "invalid-value", f"status: one of {', '.join(_STATUSES)}, not {strange[:50]!r}")
    until_us = call.moment_us("startedBefore")
    # Starts are shown to the millisecond: a run that began within this one is meant, too.
    until_us = None if until_us is None else until_us + _MILLISECOND_US - 1
    return RunFilter(statuses, call.query.get("origin", ""), call.moment_us("startedAfter"), until_us)
