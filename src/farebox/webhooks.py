"""Sending to receivers of alerts, whose URLs somebody typed: never to an address within this machine's own network,
unless that is allowed.

A name is looked up here, each of its addresses is looked at, and the connection is made to that very address, by
number: nobody can have a name mean something else a moment later. Redirects are not followed, and of an answer only the
status counts. Through a forward proxy the tunnel is asked for by that number, too.
"""

import asyncio
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from farebox.core.webhooks import NOT_PUBLIC, check_url, is_public
from farebox.outgoing import BadWay, WayOut, way_to, why_not_connected

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

ATTEMPT_SECONDS = 15.0
"""An attempt's end, whatever it waits for; receivers answer first, and do their work later."""

ADDRESSES_MAX = 4
"""Addresses of a name that are tried, one after the other."""

_USER_AGENT = "Farebox"


class SafeWebhooks:
    """The `Webhooks` port."""

    def __init__(self, ca_file: str | None, *, may_be_private: bool, attempt_seconds: float = ATTEMPT_SECONDS) -> None:
        self._ca_file = ca_file
        self._may_be_private = may_be_private
        self._attempt_seconds = attempt_seconds

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        try:
            check_url(url, may_be_private=self._may_be_private)
            async with asyncio.timeout(self._attempt_seconds):
                return await self._send(url, headers, body)
        except TimeoutError:
            return f"no answer within {self._attempt_seconds:g} s"
        except (BadWay, ValueError) as error:
            return str(error)
        except OSError as error:
            return why_not_connected(error)

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        """Raises TimeoutError, OSError, BadWay."""
        # Only here: a server that has nothing to tell carries none of it.
        import aiohttp
        from yarl import URL

        from farebox.connectors import NoWay, connector, is_unauthenticated, session_options, unauthenticated

        to, way = URL(url), way_to(url, self._ca_file)
        sent = {
            **headers,
            "content-type": "application/json",
            "user-agent": _USER_AGENT,
            "host": to.host_port_subcomponent or "",
        }
        problem: str | None = None
        async with aiohttp.ClientSession(
            connector=connector(way, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            **session_options(way),
        ) as session:
            for at in await self._addresses(to, way):
                try:
                    async with session.post(
                        at, data=body, headers=sent, allow_redirects=False, server_hostname=_tls_name(to)
                    ) as answer:
                        if way.proxy is not None and is_unauthenticated(answer):
                            return unauthenticated(answer.status)
                        return _problem_of(answer)
                except aiohttp.ClientConnectorError as error:
                    problem = why_not_connected(error.os_error)
                except NoWay as error:
                    return str(error)
                except aiohttp.ClientError as error:
                    # Something may have arrived: another address would be told twice at once.
                    return f"the connection broke before an answer ({type(error).__name__})"
        return problem

    async def _addresses(self, to: "URL", way: WayOut) -> "Sequence[URL]":
        """The URL by each of the numbers behind its name. Raises OSError: it has none, or one of them is not to be
        reached."""
        if way.proxy is not None and self._may_be_private:
            return [to]  # which the proxy may know better
        host = to.raw_host or ""
        found = await _look_up(host, to.port or 443)
        if not self._may_be_private and not all(map(is_public, found)):
            raise OSError(0, f"its name stands for {NOT_PUBLIC}")
        return [to.with_host(number) for number in found[:ADDRESSES_MAX]]


def _tls_name(to: "URL") -> str | None:
    """Whose certificate is wanted."""
    return (to.raw_host or "").rstrip(".") if to.scheme == "https" else None


def _problem_of(answer: "aiohttp.ClientResponse") -> str | None:
    if 200 <= answer.status < 300:
        return None
    if 300 <= answer.status < 400:
        return f"it answered {answer.status}, and redirects are not followed: give the address that they lead to"
    return f"it answered {answer.status}"


async def _look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, on a thread of its own: one that waits for a silent name server holds up no stop.
    Raises OSError."""
    found: Future[list[str]] = Future()

    def look_up() -> None:
        if found.set_running_or_notify_cancel():
            try:
                rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found.set_result(list(dict.fromkeys(str(address[0]) for *_, address in rows)))
            except (OSError, UnicodeError) as error:
                found.set_exception(OSError(0, "its name is not known") if isinstance(error, UnicodeError) else error)

    threading.Thread(target=look_up, name="farebox-name", daemon=True).start()
    with suppress(socket.gaierror):
        return await asyncio.wrap_future(found)
    raise OSError(0, "its name is not known")
