"""The way in: what stands at `/console` in a server to which nobody has come yet. It loads the rest when it is first
asked, so that a console nobody opens costs no memory and no time."""

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from farebox.http.asgi import Endpoint

PATH = "/console"


class Entrance:
    """The ASGI endpoint of all pages; `make` makes what serves them."""

    def __init__(self, make: Callable[[], Endpoint]) -> None:
        self._make = make
        self._serve: Endpoint | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._serve is None:
            self._serve = self._make()
        await self._serve(scope, receive, send)
