"""Apify's API, as far as an Actor needs it, over one pooled session. Only calls that are harmless a second time are
repeated."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Generic, TypeVar

import aiohttp
import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox import __version__
from farebox.actor.event_prices import EventPrices, read_event_prices
from farebox.connectors import NoWay, connector, session_options
from farebox.core.callers import User
from farebox.core.reading import UNREADABLE
from farebox.core.runs import ItemOutcome, Record, read_outcome
from farebox.outgoing import DIRECTLY, WayOut
from farebox.platform.priced_events import PRICED_EVENT
from farebox.ports import ApifyUnreachable, BillerUnreachable, NotCounted

CALL_SECONDS = 5.0
"""The time-out of short calls, as in Apify's own clients."""

LOOK_UP_SECONDS = 3.0
"""The time-out of asking whose token it is: a caller waits for that before its order is even read."""

STORAGE_SECONDS = 30.0
TRIES_MAX = 6
RETRY_FIRST_SECONDS = 0.5

T = TypeVar("T")

_TRANSIENT = frozenset({408, 425, 429})

ITEMS_PAGE = 1000
_NO_HEADERS: Mapping[str, str] = {}
_OUTCOME_FIELDS = ",".join(ItemOutcome.__struct_fields__)


class _User(Struct, rename="camel"):
    id: str
    is_paying: bool | None = None
    plan: Raw | UnsetType = UNSET


class _Envelope(Struct, Generic[T]):
    data: T


class _Run(Struct, rename="camel"):
    charged_event_counts: dict[str, int] = {}
    pricing_info: Raw | UnsetType = UNSET


class _Error(Struct):
    type: str = ""
    message: str = ""


class _Refused(Struct):
    error: _Error


class _Answer(Struct, frozen=True):
    status: int
    body: bytes

    @property
    def refusal(self) -> str:
        """Why the platform refused, in its own words."""
        try:
            error = msgspec.json.decode(self.body, type=_Refused).error
        except UNREADABLE:
            return f"status {self.status}"
        return f"status {self.status}, {error.type}: {error.message}"


class ApifyApi:
    """The API for one run, with the run's own token: its Biller, the Users of its callers, and its storages."""

    def __init__(
        self, api_url: str, token: str, run_id: str, dataset_id: str, store_id: str, way: WayOut = DIRECTLY
    ) -> None:
        self._base = f"{api_url}/v2"
        self._token = token
        self._run = f"/actor-runs/{run_id}"
        self._dataset = f"/datasets/{dataset_id}"
        self._store = f"/key-value-stores/{store_id}"
        self._session = aiohttp.ClientSession(
            headers={"user-agent": f"farebox/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=connector(way, limit=100),
            **session_options(way),
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        asked = {"eventName": PRICED_EVENT, "count": count, **({"requestId": charge_to} if charge_to else {})}
        body, headers = msgspec.json.encode(asked), {"idempotency-key": key}
        try:
            answer = await self._call("POST", f"{self._run}/charge", body, headers)
        except ApifyUnreachable as error:
            raise BillerUnreachable(str(error)) from error
        if answer.status in _TRANSIENT or answer.status >= 500:
            raise BillerUnreachable(answer.refusal)
        if answer.status >= 300:
            raise NotCounted(answer.refusal)

    async def counted(self) -> int:
        return (await self._own_run()).charged_event_counts.get(PRICED_EVENT, 0)

    async def prices(self) -> EventPrices | None:
        """The prices of the run's event; None where the run is not paid per event. Raises BillerUnreachable;
        ValueError, the event has no price."""
        pricing = (await self._own_run()).pricing_info
        return None if pricing is UNSET or bytes(pricing) == b"null" else read_event_prices(pricing, PRICED_EVENT)

    async def _own_run(self) -> _Run:
        try:
            answer = await self._storage("GET", self._run)
            return msgspec.json.decode(answer.body, type=_Envelope[_Run]).data
        except (ApifyUnreachable, *UNREADABLE) as error:
            raise BillerUnreachable(str(error)) from error

    async def user_of(self, token: str) -> User | None:
        answer = await self._call("GET", "/users/me", token=token, seconds=LOOK_UP_SECONDS)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            return None
        if answer.status != HTTPStatus.OK:
            raise ApifyUnreachable(answer.refusal)
        try:
            user = msgspec.json.decode(answer.body, type=_Envelope[_User]).data
        except UNREADABLE as error:
            raise ApifyUnreachable("the platform's answer cannot be read") from error
        # To a run's token the platform shows nothing of the plan.
        return User(user.id, user.is_paying is True, is_of_run=user.plan is UNSET)

    async def record(self, key: str) -> bytes | None:
        answer = await self._storage("GET", f"{self._store}/records/{key}")
        return None if answer.status == HTTPStatus.NOT_FOUND else answer.body

    async def put_record(self, record: Record) -> None:
        path = f"{self._store}/records/{record.key}"
        await self._storage("PUT", path, record.body, {"content-type": record.content_type})

    async def push(self, item: bytes) -> None:
        """Push an item, with one call. Raises ApifyUnreachable: it may have been pushed all the same."""
        await self._storage("POST", f"{self._dataset}/items", item, tries_max=1)

    async def outcomes(self) -> list[ItemOutcome]:
        """What became of each order that has an item in the dataset. Raises ApifyUnreachable."""
        found: list[Raw] = []
        while True:
            query = f"?format=json&fields={_OUTCOME_FIELDS}&offset={len(found)}&limit={ITEMS_PAGE}"
            answer = await self._storage("GET", f"{self._dataset}/items{query}")
            page = msgspec.json.decode(answer.body, type=list[Raw])
            if not page:
                return [outcome for item in found if (outcome := read_outcome(item)) is not None]
            found += page

    async def say(self, message: str, *, is_last: bool) -> None:
        body = {"statusMessage": message, "isStatusMessageTerminal": is_last}
        await self._storage("PUT", self._run, msgspec.json.encode(body))

    async def reboot(self) -> None:
        """Have the platform start this run on another machine now. Raises ApifyUnreachable."""
        answer = await self._call("POST", f"{self._run}/reboot", b"{}")
        if answer.status >= 300:
            raise ApifyUnreachable(answer.refusal)

    async def _storage(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        tries_max: int = TRIES_MAX,
    ) -> _Answer:
        """A call that is repeated where that may help, and is harmless a second time. Raises ApifyUnreachable."""
        tries = 0
        while True:
            tries += 1
            try:
                answer = await self._call(method, path, body, headers, seconds=STORAGE_SECONDS)
                if answer.status < 300 or (method == "GET" and answer.status == HTTPStatus.NOT_FOUND):
                    return answer
                failure = answer.refusal
                is_final = answer.status not in _TRANSIENT and answer.status < 500
            except ApifyUnreachable as error:
                failure, is_final = str(error), False
            if is_final or tries == tries_max:
                raise ApifyUnreachable(failure)
            await asyncio.sleep(RETRY_FIRST_SECONDS * 2 ** (tries - 1))

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        *,
        token: str | None = None,
        seconds: float = CALL_SECONDS,
    ) -> _Answer:
        """One call; a body is JSON, unless the headers say otherwise. Raises ApifyUnreachable: the platform may have
        heard it all the same."""
        sent = {"authorization": f"Bearer {token or self._token}", **headers}
        if body is not None:
            sent.setdefault("content-type", "application/json")
        try:
            async with self._session.request(
                method, self._base + path, data=body, headers=sent, timeout=aiohttp.ClientTimeout(total=seconds)
            ) as answer:
                return _Answer(answer.status, await answer.read())
        except NoWay as error:
            raise ApifyUnreachable(f"{method} {path.partition('?')[0]}: {error}") from None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # The message of a foreign error may quote a header, and with it a token.
            raise ApifyUnreachable(f"{method} {path.partition('?')[0]}: {type(error).__name__}") from None
