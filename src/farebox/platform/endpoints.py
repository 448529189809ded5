"""The run API of Apify's platform, under /v2: what its clients, its CLI and its integrations call to run Actors.

Shapes: Apify's OpenAPI document of August 2026, and what the clients of each major version insist on. Another
account's run, dataset or store is answered like one that does not exist.
"""

from collections.abc import Mapping
from contextlib import aclosing

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal, unknown
from farebox.core.headers import read_request_head
from farebox.http.asgi import Endpoint, send_body, send_start, send_whole
from farebox.http.queries import query_pairs
from farebox.http.refusals import guarded
from farebox.platform import documents, run_calls, storages
from farebox.platform.calls import Answered, Call, Handle, RunApi, RunHandle, Streamed, shown
from farebox.platform.parameters import check, lines_of_run


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

    return guarded(endpoint, documents.ERRORS)


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


def _of_actor(handle: Handle) -> Handle:
    async def handle_known(call: Call) -> Answered | Streamed:
        if call.named("actor") not in documents.ACTOR_NAMES:
            raise unknown(f"Actor {call.named('actor')[:100]!r} was not found")
        return await handle(call)

    return handle_known


def _of_last_run(handle: RunHandle) -> Handle:
    """The caller's last run among those with the status and the origin that are asked for."""

    async def handle_last(call: Call) -> Answered | Streamed:
        found, _ = await call.api.runs.runs(call.caller.account.id, 0, 1, desc=True, which=run_calls.which(call))
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


async def _actor(call: Call) -> Answered:
    return shown(documents.actor_object(call.caller.account))


async def _default_build(call: Call) -> Answered:
    return shown(documents.build_object(call.caller.account))


async def _build(call: Call) -> Answered:
    if call.named("id") != documents.BUILD_ID:
        raise unknown(f"Build {call.named('id')[:100]!r} was not found")
    return await _default_build(call)


async def _me(call: Call) -> Answered:
    return shown(documents.user_object(call.caller))


async def _user(call: Call) -> Answered:
    account = call.caller.account
    if call.named("id") not in (documents.user_id(account.id), account.name):
        raise unknown(f"User {call.named('id')[:100]!r} was not found")
    return shown({"id": documents.user_id(account.id), "username": account.name, "profile": {}})


_OF_RUN: Mapping[str, RunHandle] = {
    "GET ": run_calls.show,
    "PUT ": run_calls.update,
    "POST /abort": run_calls.abort,
    "POST /charge": run_calls.charge,
    "POST /reboot": run_calls.reboot,
    "GET /log": run_calls.log,
    "GET /dataset": storages.dataset,
    "GET /dataset/items": storages.items,
    "POST /dataset/items": storages.push,
    "GET /key-value-store": storages.store,
    "GET /key-value-store/keys": storages.keys,
    "GET /key-value-store/records/{key}": storages.record,
    "PUT /key-value-store/records/{key}": storages.put,
    "GET /request-queue": storages.queue,
}

_HANDLES: Mapping[str, Handle] = {
    "GET /actors/{actor}": _of_actor(_actor),
    "POST /actors/{actor}/runs": _of_actor(run_calls.begin),
    "GET /actors/{actor}/runs": _of_actor(run_calls.list_runs),
    "POST /actors/{actor}/run-sync": _of_actor(run_calls.run_sync),
    "GET /actors/{actor}/run-sync": _of_actor(run_calls.run_sync),
    "POST /actors/{actor}/run-sync-get-dataset-items": _of_actor(run_calls.run_sync_items),
    "GET /actors/{actor}/run-sync-get-dataset-items": _of_actor(run_calls.run_sync_items),
    "GET /actors/{actor}/builds/default": _of_actor(_default_build),
    **{
        line: _of_last_run(handle) if "/runs/last" in line else _of_own_run(below, handle)
        for below, handle in _OF_RUN.items()
        for line in lines_of_run(below)
    },
    "GET /actor-runs": run_calls.list_runs,
    "GET /actor-builds/{id}": _build,
    "GET /users/me": _me,
    "GET /users/{id}": _user,
}
"""By the lines of PARAMETERS."""
