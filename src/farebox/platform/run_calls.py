"""Calls about runs: to begin, follow and end one, and what an Actor that runs elsewhere says of its own."""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from farebox import clock
from farebox.core.errors import Refusal, invalid
from farebox.core.money import parse_usd
from farebox.core.reading import UNREADABLE, Number, as_whole, json_path_error
from farebox.core.runs import Run, RunFilter, RunStatus
from farebox.platform import storages
from farebox.platform.calls import ATTACHED, PAGE_MAX, Answered, Call, RunApi, Streamed, made, shown
from farebox.platform.documents import run_object, wrong
from farebox.platform.items import wanted
from farebox.platform.parameters import check
from farebox.platform.priced_events import COUNT_MAX

WAIT_SECONDS_MAX = 60
SYNC_SECONDS_MAX = 300
TIMEOUT_SECONDS_MAX = 86_400
MEMORY_MBYTES = (128, 32_768)
LOG_POLL_SECONDS = 0.3
MESSAGE_MAX = 10_000
KEY_LENGTH_MAX = 256

_ORIGINS = ("CLI", "CI", "MCP", "WEB", "ACTOR")
_STATUSES = get_args(RunStatus)
_MILLISECOND_US = 1000

_NOT_PRINTED = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""Escape sequences of terminals, and control characters."""


class _Charge(Struct, rename="camel"):
    event_name: str
    count: Number
    request_id: str | None = None


class _Update(Struct, rename="camel"):
    run_id: str | None = None
    status_message: str | None = None
    is_status_message_terminal: bool | None = None
    general_access: str | None = None


_decode_charge = msgspec.json.Decoder(_Charge).decode
_decode_update = msgspec.json.Decoder(_Update).decode


async def _begin_and_wait(call: Call, seconds: int) -> Run:
    """The run that a call begins, once it has finished, or as it stands after `seconds`. Raises Refusal 400."""
    limit = call.query.get("maxTotalChargeUsd", "")
    try:
        limit_nanos = parse_usd(limit) if limit else None
    except ValueError as error:
        raise wrong("maxTotalChargeUsd", str(error)) from error
    origin = call.head.first(b"x-apify-request-origin").decode("latin-1")
    timeout_seconds = call.number("timeout", 3600, most=TIMEOUT_SECONDS_MAX)
    memory_mbytes = call.number("memory", 1024, *MEMORY_MBYTES)
    run = await call.api.runner.begin(
        call.caller,
        await call.body() if call.scope["method"] == "POST" else b"",
        origin=origin if origin in _ORIGINS else "API",
        timeout_seconds=timeout_seconds,
        memory_mbytes=memory_mbytes,
        limit_nanos=limit_nanos,
    )
    return await call.api.runner.finished(run, seconds)


async def begin(call: Call) -> Answered:
    run = await _begin_and_wait(call, _wait_seconds(call))
    return shown(run_object(run), 201, (b"location", f"/v2/actor-runs/{run.id}".encode()))


async def _run_to_the_end(call: Call) -> Run:
    run = await _begin_and_wait(call, SYNC_SECONDS_MAX)
    if not run.is_finished:
        raise Refusal(408, "run-timeout-exceeded", f"Run {run.id} did not finish within {SYNC_SECONDS_MAX} s")
    if run.status != "SUCCEEDED":
        raise Refusal(400, "run-failed", f"Run {run.id} ended {run.status}: {run.status_message}")
    return run


async def run_sync(call: Call) -> Answered:
    run = await _run_to_the_end(call)
    found = await storages.find_record(call, run, call.query.get("outputRecordKey") or "OUTPUT")
    return Answered(b"", 201, []) if found is None else replace(found, status=201)


async def run_sync_items(call: Call) -> Answered:
    asked = wanted(call)  # before anything is begun
    return await storages.items_as(asked, call, await _run_to_the_end(call), 201)


async def list_runs(call: Call) -> Answered:
    offset, limit, desc = call.number("offset", 0), call.limit(PAGE_MAX), call.flag("desc")
    found, total = await call.api.runs.runs(call.caller.account.id, offset, limit, desc=desc, which=which(call))
    page = {"total": total, "offset": offset, "limit": limit, "desc": desc, "count": len(found)}
    return shown({**page, "items": [run_object(run) for run in found]})


async def show(call: Call, run: Run) -> Answered:
    run = await call.api.runner.finished(run, _wait_seconds(call))
    return shown(run_object(run, await call.api.runs.billed_events(run.id)))


async def abort(call: Call, run: Run) -> Answered:
    await call.api.runner.abort(run)
    return shown(run_object(await call.api.runner.finished(run, 0)))


async def log(call: Call, run: Run) -> Streamed:
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


def which(call: Call) -> RunFilter:
    """Which runs are asked for. Raises Refusal 400."""
    statuses = call.names("status")
    if strange := next((status for status in statuses if status not in _STATUSES), None):
        raise wrong("status", f"one of {', '.join(_STATUSES)}, not {strange[:50]!r}")
    until_us = call.moment_us("startedBefore")
    # Starts are shown to the millisecond: a run that began within this one is meant, too.
    until_us = None if until_us is None else until_us + _MILLISECOND_US - 1
    return RunFilter(statuses, call.query.get("origin", ""), call.moment_us("startedAfter"), until_us)


async def charge(call: Call, run: Run) -> Answered:
    call.api.events.count_call(run)
    try:
        asked = _decode_charge(await call.json())
    except UNREADABLE as error:
        raise invalid(f"The body is not a charge: {json_path_error(error)}") from error
    count = as_whole(asked.count)
    if count is None or not 1 <= count <= COUNT_MAX:
        raise invalid(f"count: a whole number from 1 to {COUNT_MAX}, not {asked.count}")
    key = call.head.idempotency_key.decode("latin-1")
    if len(key) > KEY_LENGTH_MAX or not key.isprintable():
        message = f"idempotency-key: at most {KEY_LENGTH_MAX} printable characters"
        raise Refusal(400, "invalid-idempotency-key", message)
    await call.api.events.bill(call.caller, run, asked.event_name, count, key)
    return made()


async def update(call: Call, run: Run) -> Answered:
    try:
        asked = _decode_update(await call.json())
    except UNREADABLE as error:
        raise invalid(f"The body is not an update of a run: {json_path_error(error)}") from error
    check("PUT /actor-runs/{id}", {"generalAccess": asked.general_access or ""})
    if asked.run_id not in (None, run.id):
        raise wrong("runId", f"this is the run {run.id}, not {asked.run_id[:50]!r}")
    if asked.is_status_message_terminal and not run.is_finished:
        raise wrong("isStatusMessageTerminal", "this run has not finished, and says its last message itself")
    if asked.status_message is not None:
        await call.api.runs.tell_run(run.id, asked.status_message[:MESSAGE_MAX])
    return shown(run_object(await call.api.runner.finished(run, 0)))


async def reboot(_: Call, run: Run) -> Answered:
    """A run here has no machine of its own to start anew: it simply goes on."""
    if run.is_finished:
        raise Refusal(403, "job-finished", f"Run {run.id} has finished")
    return shown(run_object(run))
