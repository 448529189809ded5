"""GET /videos/{job} and what it made: for the account that ordered it."""

from starlette.types import Receive, Scope, Send

from farebox.admission import Admission
from farebox.core.errors import broken
from farebox.core.formats.videos import shown
from farebox.core.headers import HeaderList, read_request_head
from farebox.core.resale import fare_number, retold
from farebox.http.asgi import AsgiCall, Endpoint, send_json, send_start
from farebox.http.queries import query_values, query_whole
from farebox.jobs import Jobs
from farebox.ports import Callers, Media, UpstreamBroke
from farebox.web.own_address import OwnAddress
from farebox.web.relay import fare_headers

PART = (b"range", b"if-range")
"""What of a caller's headers says which part of a video is wanted."""


class JobPages:
    """The endpoints of jobs."""

    def __init__(self, callers: Callers, jobs: Jobs, admission: Admission, own_address: OwnAddress) -> None:
        self._callers = callers
        self._jobs = jobs
        self._admission = admission
        self._own_address = own_address

    def routes(self) -> dict[str, Endpoint]:
        """By their path below a base."""
        return {"/videos/{job}": self._job, "/videos/{job}/content": self._content}

    async def _job(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: HeaderList = scope["headers"]
        caller = await self._callers.identify(read_request_head(headers))
        found = await self._jobs.find(caller.account, scope["path_params"]["job"])
        named = found.job.generation_id
        told = [(b"x-generation-id", named.encode())] if named and named.isascii() and named.isprintable() else []
        body = shown(found.job, self._own_address.told_by(headers))
        if not caller.plan.shows_cost:
            fare = None if found.fare is None else fare_number(found.fare.nanos)
            body = retold(body, lambda usage: fare)
        await send_json(send, body, [*told, *fare_headers(found.fare)])

    async def _content(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: HeaderList = scope["headers"]
        caller = await self._callers.identify(read_request_head(headers))
        index = query_whole(query_values(scope), "index", 0)
        wanted = {name.decode(): value.decode("latin-1") for name, value in headers if name in PART}
        query = (("index", str(index)),) if index else ()
        # One of so many at once, as orders are; and at a stop it is waited for as they are.
        admitted = self._admission.enter(caller.account.id)
        try:
            async with self._jobs.content(caller.account, scope["path_params"]["job"], query, wanted) as media:
                await _send_on(media, AsgiCall(scope, receive, send), send, is_head=scope["method"] == "HEAD")
        finally:
            self._admission.leave(caller.account.id, admitted)


async def _send_on(media: Media, call: AsgiCall, send: Send, *, is_head: bool) -> None:
    """Send what comes on as it comes. Raises Refusal: it broke off, which leaves the answer without its end."""
    has_left = False

    def leave() -> None:
        nonlocal has_left
        has_left = True
        media.close()

    await send_start(send, media.status, media.about_bytes)
    call.when_gone(leave)
    try:
        while not is_head and (part := await media.chunk()):
            await call.put(part)
    except UpstreamBroke as error:
        if not has_left:
            raise broken(f"what a job made broke off: {error}") from error
    else:
        await call.end()
    finally:
        call.when_gone(None)
