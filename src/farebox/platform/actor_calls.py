"""What an Actor that runs elsewhere calls its platform for: priced events, its status message, what it leaves
behind."""

import re

import msgspec
from msgspec import Struct

from farebox.core.errors import Refusal, invalid
from farebox.core.legible import decode_fields, decode_list
from farebox.core.reading import UNREADABLE, Number, as_whole, json_path_error
from farebox.core.runs import Record, Run
from farebox.http.asgi import JSON
from farebox.platform.calls import Answered, Call, shown
from farebox.platform.documents import run_object, wrong
from farebox.platform.parameters import check
from farebox.platform.priced_events import COUNT_MAX

KEY_LENGTH_MAX = 256
_RECORD_KEY = re.compile(r"[a-zA-Z0-9!\-_.'()]{1,256}")

MESSAGE_MAX = 10_000


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
    return _made()


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


async def push(call: Call, run: Run) -> Answered:
    body = (await call.json()).strip()
    try:
        found = [bytes(item) for item in decode_list(body)] if body.startswith(b"[") else [body]
        for item in found:
            decode_fields(item)
    except UNREADABLE as error:
        raise Refusal(400, "invalid-value", "The body is to be an object, or a list of objects") from error
    await call.api.runs.append(run.dataset_id, found)
    return _made(f"/v2/datasets/{run.dataset_id}/items")


async def put(call: Call, run: Run) -> Answered:
    key = call.named("key")
    if not _RECORD_KEY.fullmatch(key):
        raise Refusal(400, "invalid-record-key", f"{key[:100]!r}: letters, digits and !-_.'(), 256 at most")
    content_type = call.head.first(b"content-type").decode("latin-1") or "application/octet-stream"
    await call.api.runs.put_record(run.store_id, Record(key, content_type, await call.body()))
    return _made(f"/v2/key-value-stores/{run.store_id}/records/{key}")


def _made(location: str = "") -> Answered:
    return Answered(b"{}", 201, [JSON, *([(b"location", location.encode())] if location else [])])
