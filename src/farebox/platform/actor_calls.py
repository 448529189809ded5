"""What an Actor that runs elsewhere calls its platform for: priced events, its status message, what it leaves
behind."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import Struct

from farebox.core.errors import Refusal
from farebox.core.legible import decode_fields, decode_list
from farebox.core.reading import UNREADABLE, Number, as_whole, json_path_error
from farebox.core.runs import Record
from farebox.http.asgi import JSON
from farebox.platform.calls import Answered, Call, Handle, own_run
from farebox.platform.documents import enveloped, run_object
from farebox.platform.parameters import check
from farebox.platform.priced_events import COUNT_MAX, PricedEvents
from farebox.platform.store import SqlRuns

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
_CREATED = b"{}"


class ActorCalls:
    """The calls of a running Actor."""

    def __init__(self, runs: SqlRuns, events: PricedEvents) -> None:
        self._runs = runs
        self._events = events

    def handles(self) -> Mapping[str, Handle]:
        """By method and path, as lines of PARAMETERS."""
        return MappingProxyType(
            {
                "PUT /actor-runs/{id}": self._update,
                "POST /actor-runs/{id}/charge": self._charge,
                "POST /actor-runs/{id}/reboot": self._reboot,
                "POST /actor-runs/{id}/dataset/items": self._push,
                "PUT /actor-runs/{id}/key-value-store/records/{key}": self._put,
                "POST /datasets/{id}/items": self._push,
                "PUT /key-value-stores/{id}/records/{key}": self._put,
            }
        )

    async def _charge(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Actor run")
        self._events.count_call(run)
        try:
            asked = _decode_charge(await call.json())
        except UNREADABLE as error:
            raise Refusal(400, "invalid-request", f"The body is not a charge: {json_path_error(error)}") from error
        count = as_whole(asked.count)
        if count is None or not 1 <= count <= COUNT_MAX:
            raise Refusal(400, "invalid-request", f"count: a whole number from 1 to {COUNT_MAX}, not {asked.count}")
        key = call.head.idempotency_key.decode("latin-1")
        if len(key) > KEY_LENGTH_MAX or not key.isprintable():
            message = f"idempotency-key: at most {KEY_LENGTH_MAX} printable characters"
            raise Refusal(400, "invalid-idempotency-key", message)
        await self._events.bill(call.caller, run, asked.event_name, count, key)
        return Answered(_CREATED, 201)

    async def _update(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Actor run")
        try:
            asked = _decode_update(await call.json())
        except UNREADABLE as error:
            message = f"The body is not an update of a run: {json_path_error(error)}"
            raise Refusal(400, "invalid-request", message) from error
        check("PUT /actor-runs/{id}", {"generalAccess": asked.general_access or ""})
        if asked.run_id not in (None, run.id):
            raise Refusal(400, "invalid-value", f"runId: this is the run {run.id}, not {asked.run_id[:50]!r}")
        if asked.is_status_message_terminal and not run.is_finished:
            message = "isStatusMessageTerminal: this run has not finished, and says its last message itself"
            raise Refusal(400, "invalid-value", message)
        if asked.status_message is not None:
            await self._runs.tell_run(run.id, asked.status_message[:MESSAGE_MAX])
        return Answered(enveloped(run_object(await own_run(self._runs, call, "Actor run"))))

    async def _reboot(self, call: Call) -> Answered:
        """A run here has no machine of its own to start anew: it simply goes on."""
        run = await own_run(self._runs, call, "Actor run")
        if run.is_finished:
            raise Refusal(403, "job-finished", f"Run {run.id} has finished")
        return Answered(enveloped(run_object(run)))

    async def _push(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Dataset")
        body = (await call.json()).strip()
        try:
            found = [bytes(item) for item in decode_list(body)] if body.startswith(b"[") else [body]
            for item in found:
                decode_fields(item)
        except UNREADABLE as error:
            raise Refusal(400, "invalid-value", "The body is to be an object, or a list of objects") from error
        await self._runs.append(run.dataset_id, found)
        return Answered(_CREATED, 201, [JSON, (b"location", f"/v2/datasets/{run.dataset_id}/items".encode())])

    async def _put(self, call: Call) -> Answered:
        run = await own_run(self._runs, call, "Key-value store")
        key = call.named("key")
        if not _RECORD_KEY.fullmatch(key):
            raise Refusal(400, "invalid-record-key", f"{key[:100]!r}: letters, digits and !-_.'(), 256 at most")
        content_type = call.head.first(b"content-type").decode("latin-1") or "application/octet-stream"
        await self._runs.put_record(run.store_id, Record(key, content_type, await call.body()))
        location = f"/v2/key-value-stores/{run.store_id}/records/{key}"
        return Answered(_CREATED, 201, [JSON, (b"location", location.encode())])
