"""The run API of Apify's platform, under /v2: what its clients, its CLI and its integrations call to run Actors.

Shapes: Apify's OpenAPI document of August 2026, and what the clients of each major version insist on. Another
account's run, dataset or store is answered like one that does not exist.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import get_args

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.core.errors import Refusal, unknown
from farebox.core.headers import read_request_head
from farebox.core.money import parse_usd
from farebox.core.runs import Run, RunFilter, RunStatus
from farebox.http.asgi import Endpoint, send_body, send_start, send_whole
from farebox.http.queries import query_pairs
from farebox.http.refusals import guarded
from farebox.platform import actor_calls, storages
from farebox.platform.calls import ATTACHED, PAGE_MAX, Answered, Call, Handle, RunApi, RunHandle, Streamed, shown
from farebox.platform.documents import (
    ACTOR_NAMES,
    BUILD_ID,
    ERRORS,
    actor_object,
    build_object,
    run_object,
    user_id,
    user_object,
    wrong,
)
from farebox.platform.items import wanted
from farebox.platform.parameters import check, lines_of_run
from farebox.platform.runs import Options

WAIT_SECONDS_MAX = 60
SYNC_SECONDS_MAX = 300
TIMEOUT_SECONDS_MAX = 86_400
MEMORY_MBYTES = (128, 32_768)
LOG_POLL_SECONDS = 0.3

_ORIGINS = ("CLI", "CI", "MCP", "WEB", "ACTOR")
_STATUSES = get_args(RunStatus)
_MILLISECOND_US = 1000

_NOT_PRINTED = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""Escape sequences of terminals, and control characters."""


def routes(api: RunApi) -> list[tuple[str, list[str], Endpoint]]:
    """Each path with its methods and its endpoint."""
    by_path: dict[str, list[str]] = {}
    for line in _HANDLES:
        method, path = line.split(" ")
        by_path.setdefault(path, []).append(method)
    return [
        (f"/v2{spelling}", methods, _endpoint(api, path))
        for path, methods in by_path.items()
        for spelling in dict.fromkeys((path, path.replace("/actors/{actor}", "/acts/{actor}")))
    ]


def _endpoint(api: RunApi, path: str) -> Endpoint:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        line = f"{'GET' if scope['method'] == 'HEAD' else scope['method']} {path}"
        call = await _call(api, scope, receive)
        check(line, call.query)
        answered = await _HANDLES[line](call)
        if isinstance(answered, Answered):
            await send_whole(send, answered.status, answered.headers, answered.body)
            return
        await send_start(send, 200, answered.headers)
        async with aclosing(answered.pieces) as pieces:
            async for piece in pieces:
                await send_body(send, piece, more=True)
        await send_body(send, b"")

    return guarded(endpoint, ERRORS)


async def _call(api: RunApi, scope: Scope, receive: Receive) -> Call:
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
    return Call(api, scope, receive, head, await api.callers.identify(head), query)


# Whose calls they are


def _of_actor(handle: Handle) -> Handle:
    async def handle_known(call: Call) -> Answered | Streamed:
        if call.named("actor") not in ACTOR_NAMES:
            raise unknown(f"Actor {call.named('actor')[:100]!r} was not found")
        return await handle(call)

    return handle_known


def _of_last_run(handle: RunHandle) -> Handle:
    """The caller's last run among those with the status and the origin that are asked for."""

    async def handle_last(call: Call) -> Answered | Streamed:
        found, _ = await call.api.runs.runs(call.caller.account.id, 0, 1, desc=True, which=_which(call))
        if not found:
            raise unknown("There was no such run yet")
        return await handle(call, found[0])

    return _of_actor(handle_last)


_KINDS = {"dataset": "Dataset", "key-value-store": "Key-value store", "request-queue": "Request queue"}


def _of_own_run(below: str, handle: RunHandle) -> Handle:
    """The caller's run that a path names by its `id`, or by the id of one of its storages."""
    kind = _KINDS.get(below.split("/")[1] if "/" in below else "", "Actor run")

    async def handle_own(call: Call) -> Answered | Streamed:
        run = await call.api.runs.run(call.caller.account.id, call.named("id"))
        if run is None:
            raise unknown(f"{kind} {call.named('id')[:100]!r} was not found")
        return await handle(call, run)

    return handle_own


# Runs


async def _begin_and_wait(call: Call, seconds: int) -> Run:
    """Begin the run that a call asks for: it, once it has finished, or as it stands after `seconds`. Raises Refusal
    400."""
    limit = call.query.get("maxTotalChargeUsd", "")
    try:
        limit_nanos = parse_usd(limit) if limit else None
    except ValueError as error:
        raise wrong("maxTotalChargeUsd", str(error)) from error
    origin = call.head.first(b"x-apify-request-origin").decode("latin-1")
    options = Options(
        call.number("timeout", 3600, most=TIMEOUT_SECONDS_MAX),
        call.number("memory", 1024, *MEMORY_MBYTES),
        limit_nanos,
        origin if origin in _ORIGINS else "API",
    )
    body = await call.body() if call.scope["method"] == "POST" else b""
    run = await call.api.runner.begin(call.caller, body, options)
    return await call.api.runner.finished(run, seconds)


async def _begin_run(call: Call) -> Answered:
    run = await _begin_and_wait(call, _wait_seconds(call))
    return shown(run_object(run), 201, (b"location", f"/v2/actor-runs/{run.id}".encode()))


async def _run_to_the_end(call: Call) -> Run:
    run = await _begin_and_wait(call, SYNC_SECONDS_MAX)
    if not run.is_finished:
        raise Refusal(408, "run-timeout-exceeded", f"Run {run.id} did not finish within {SYNC_SECONDS_MAX} s")
    if run.status != "SUCCEEDED":
        raise Refusal(400, "run-failed", f"Run {run.id} ended {run.status}: {run.status_message}")
    return run


async def _run_sync(call: Call) -> Answered:
    run = await _run_to_the_end(call)
    found = await storages.find_record(call, run, call.query.get("outputRecordKey") or "OUTPUT")
    return Answered(b"", 201, []) if found is None else replace(found, status=201)


async def _run_sync_items(call: Call) -> Answered:
    asked = wanted(call)  # before anything is begun
    return await storages.items_as(asked, call, await _run_to_the_end(call), 201)


async def _list(call: Call) -> Answered:
    offset, limit, desc = call.number("offset", 0), call.limit(PAGE_MAX), call.flag("desc")
    found, total = await call.api.runs.runs(call.caller.account.id, offset, limit, desc=desc, which=_which(call))
    page = {"total": total, "offset": offset, "limit": limit, "desc": desc, "count": len(found)}
    return shown({**page, "items": [run_object(run) for run in found]})


async def _run(call: Call, run: Run) -> Answered:
    run = await call.api.runner.finished(run, _wait_seconds(call))
    return shown(run_object(run, await call.api.runs.billed_events(run.id)))


async def _abort(call: Call, run: Run) -> Answered:
    await call.api.runner.abort(run)
    return shown(run_object(await call.api.runner.finished(run, 0)))


async def _log(call: Call, run: Run) -> Streamed:
    """The log: lines with their moments; with `stream`, as they come until the run has finished."""
    kept = [ATTACHED] if call.flag("download") else []
    lines = _lines(call.api, run, is_streamed=call.flag("stream"), is_raw=call.flag("raw"))
    return Streamed(lines, [(b"content-type", b"text/plain; charset=utf-8"), *kept])


async def _lines(api: RunApi, run: Run, *, is_streamed: bool, is_raw: bool) -> AsyncGenerator[bytes]:
    after = 0
    while True:
        lines = await api.runs.lines(run.id, after)
        text = "".join(f"{clock.iso(line.created_us)} {line.text}\n" for line in lines)
        if lines:
            after = lines[-1].number
            yield (text if is_raw else _NOT_PRINTED.sub("", text)).encode()
        elif run.is_finished or not is_streamed:
            return
        else:
            await asyncio.sleep(LOG_POLL_SECONDS)
            run = await api.runner.finished(run, 0)


def _wait_seconds(call: Call) -> int:
    """How long a run is waited for. Raises Refusal 400."""
    return min(call.number("waitForFinish", 0), WAIT_SECONDS_MAX)


def _which(call: Call) -> RunFilter:
    """Which runs are asked for. Raises Refusal 400."""
    statuses = call.names("status")
    if strange := next((status for status in statuses if status not in _STATUSES), None):
        raise wrong("status", f"one of {', '.join(_STATUSES)}, not {strange[:50]!r}")
    until_us = call.moment_us("startedBefore")
    # Starts are shown to the millisecond: a run that began within this one is meant, too.
    until_us = None if until_us is None else until_us + _MILLISECOND_US - 1
    return RunFilter(statuses, call.query.get("origin", ""), call.moment_us("startedAfter"), until_us)


# Who and what


async def _actor(call: Call) -> Answered:
    return shown(actor_object(call.caller.account))


async def _default_build(call: Call) -> Answered:
    return shown(build_object(call.caller.account))


async def _build(call: Call) -> Answered:
    if call.named("id") != BUILD_ID:
        raise unknown(f"Build {call.named('id')[:100]!r} was not found")
    return await _default_build(call)


async def _me(call: Call) -> Answered:
    return shown(user_object(call.caller))


async def _user(call: Call) -> Answered:
    account = call.caller.account
    if call.named("id") not in (user_id(account.id), account.name):
        raise unknown(f"User {call.named('id')[:100]!r} was not found")
    return shown({"id": user_id(account.id), "username": account.name, "profile": {}})


_OF_RUN: Mapping[str, RunHandle] = {
    "GET ": _run,
    "PUT ": actor_calls.update,
    "POST /abort": _abort,
    "POST /charge": actor_calls.charge,
    "POST /reboot": actor_calls.reboot,
    "GET /log": _log,
    "GET /dataset": storages.dataset,
    "GET /dataset/items": storages.items,
    "POST /dataset/items": actor_calls.push,
    "GET /key-value-store": storages.store,
    "GET /key-value-store/keys": storages.keys,
    "GET /key-value-store/records/{key}": storages.record,
    "PUT /key-value-store/records/{key}": actor_calls.put,
    "GET /request-queue": storages.queue,
}

_HANDLES: Mapping[str, Handle] = {
    "GET /actors/{actor}": _of_actor(_actor),
    "POST /actors/{actor}/runs": _of_actor(_begin_run),
    "GET /actors/{actor}/runs": _of_actor(_list),
    "POST /actors/{actor}/run-sync": _of_actor(_run_sync),
    "GET /actors/{actor}/run-sync": _of_actor(_run_sync),
    "POST /actors/{actor}/run-sync-get-dataset-items": _of_actor(_run_sync_items),
    "GET /actors/{actor}/run-sync-get-dataset-items": _of_actor(_run_sync_items),
    "GET /actors/{actor}/builds/default": _of_actor(_default_build),
    **{
        line: _of_last_run(handle) if "/runs/last" in line else _of_own_run(below, handle)
        for below, handle in _OF_RUN.items()
        for line in lines_of_run(below)
    },
    "GET /actor-runs": _list,
    "GET /actor-builds/{id}": _build,
    "GET /users/me": _me,
    "GET /users/{id}": _user,
}
"""By the lines of PARAMETERS."""
