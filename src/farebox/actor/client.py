"""The platform's API, as far as an Actor needs it: over one pooled session, without a retry that nobody asked for."""

import asyncio
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox import __version__
from farebox.actor.environment import EVENT
from farebox.actor.event_prices import EventPrices, read_event_prices
from farebox.actor.outcomes import FIELDS, read_outcomes
from farebox.core.callers import User
from farebox.core.reading import UNREADABLE
from farebox.core.runs import ItemOutcome, Record
from farebox.ports import BillerUnreachable, NotCounted, PlatformUnreachable

CALL_SECONDS = 5.0
"""What the platform's own clients give a short call."""

LOOK_UP_SECONDS = 3.0
"""A caller waits for this before its order is even read."""

STORAGE_SECONDS = 30.0
TRIES_MAX = 6
RETRY_FIRST_SECONDS = 0.5

_TRANSIENT = frozenset({408, 425, 429})

ITEMS_PAGE = 1000


class _User(Struct, rename="camel"):
    id: str
    username: str = ""
    is_paying: bool | None = None
    plan: Raw | UnsetType = UNSET


class _Envelope(Struct):
    data: Raw


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
    content_type: str
    body: bytes

    @property
    def refusal(self) -> str:
        """In the platform's words."""
        try:
            error = msgspec.json.decode(self.body, type=_Refused).error
        except UNREADABLE:
            return f"status {self.status}"
        return f"status {self.status}, {error.type}: {error.message}"


class Platform:
    """One run's API, under the run's own token."""

    def __init__(self, api_url: str, token: str, run_id: str, dataset_id: str, store_id: str) -> None:
        self._base = f"{api_url}/v2"
        self._token = token
        self._run = f"/actor-runs/{run_id}"
        self._dataset = f"/datasets/{dataset_id}"
        self._store = f"/key-value-stores/{store_id}"
        self._session = aiohttp.ClientSession(
            headers={"user-agent": f"farebox/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=100),
        )

    async def close(self) -> None:
        await self._session.close()

    # Charging

    async def tell(self, key: str, count: int, charge_to: str) -> None:
        body: dict[str, object] = {"eventName": EVENT, "count": count}
        if charge_to:
            body["requestId"] = charge_to
        try:
            answer = await self._call("POST", f"{self._run}/charge", body, headers={"idempotency-key": key})
        except PlatformUnreachable as error:
            raise BillerUnreachable(str(error)) from error
        if answer.status in _TRANSIENT or answer.status >= 500:
            raise BillerUnreachable(answer.refusal)
        if answer.status >= 300:
            raise NotCounted(answer.refusal)

    async def counted(self) -> int:
        return (await self._own_run()).charged_event_counts.get(EVENT, 0)

    async def prices(self) -> EventPrices | None:
        """What the run's event costs; None where it is not paid per event. Raises as `counted`; ValueError."""
        pricing = (await self._own_run()).pricing_info
        return None if pricing is UNSET or bytes(pricing) == b"null" else read_event_prices(pricing, EVENT)

    async def _own_run(self) -> _Run:
        try:
            answer = await self._storage("GET", self._run)
            return msgspec.json.decode(msgspec.json.decode(answer.body, type=_Envelope).data, type=_Run)
        except (PlatformUnreachable, *UNREADABLE) as error:
            raise BillerUnreachable(str(error)) from error

    # Users

    async def user_of(self, token: str) -> User | None:
        answer = await self._call("GET", "/users/me", token=token, seconds=LOOK_UP_SECONDS)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            return None
        if answer.status != HTTPStatus.OK:
            raise PlatformUnreachable(answer.refusal)
        try:
            user = msgspec.json.decode(msgspec.json.decode(answer.body, type=_Envelope).data, type=_User)
        except UNREADABLE as error:
            raise PlatformUnreachable("the platform's answer cannot be read") from error
        # A run's token is told nothing of the plan.
        return User(user.id, user.is_paying is True, is_of_run=user.plan is UNSET)

    # What a run leaves

    async def record(self, key: str) -> Record | None:
        answer = await self._storage("GET", f"{self._store}/records/{key}")
        return None if answer.status == HTTPStatus.NOT_FOUND else Record(key, answer.content_type, answer.body)

    async def put_record(self, record: Record) -> None:
        path = f"{self._store}/records/{record.key}"
        await self._storage("PUT", path, record.body, {"content-type": record.content_type})

    async def push(self, item: bytes) -> None:
        """Once: whether it was heard is not known where it fails. Raises PlatformUnreachable."""
        headers = {"content-type": "application/json"}
        answer = await self._call("POST", f"{self._dataset}/items", item, headers=headers, seconds=STORAGE_SECONDS)
        if answer.status >= 300:
            raise PlatformUnreachable(answer.refusal)

    async def outcomes(self) -> list[ItemOutcome]:
        """What all items tell. Raises PlatformUnreachable."""
        found: list[Raw] = []
        while True:
            query = f"?format=json&fields={FIELDS}&offset={len(found)}&limit={ITEMS_PAGE}"
            answer = await self._storage("GET", f"{self._dataset}/items{query}")
            page = msgspec.json.decode(answer.body, type=list[Raw])
            if not page:
                return read_outcomes(found)
            found += page

    async def say(self, message: str, *, is_last: bool) -> None:
        body = {"statusMessage": message, "isStatusMessageTerminal": is_last}
        await self._storage("PUT", self._run, msgspec.json.encode(body), {"content-type": "application/json"})

    async def reboot(self) -> None:
        """Be put on another machine now. Raises PlatformUnreachable."""
        answer = await self._call("POST", f"{self._run}/reboot", {})
        if answer.status >= 300:
            raise PlatformUnreachable(answer.refusal)

    async def _storage(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> _Answer:
        """Tried again where that may mend it: each of these is harmless a second time. Raises PlatformUnreachable."""
        tries = 0
        while True:
            tries += 1
            try:
                answer = await self._call(method, path, body, headers=headers, seconds=STORAGE_SECONDS)
                if answer.status < 300 or (method == "GET" and answer.status == HTTPStatus.NOT_FOUND):
                    return answer
                failure = answer.refusal
                is_final = answer.status not in _TRANSIENT and answer.status < 500
            except PlatformUnreachable as error:
                failure, is_final = str(error), False
            if is_final or tries == TRIES_MAX:
                raise PlatformUnreachable(failure)
            await asyncio.sleep(RETRY_FIRST_SECONDS * 2 ** (tries - 1))

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        token: str | None = None,
        seconds: float = CALL_SECONDS,
    ) -> _Answer:
        """One call. Raises PlatformUnreachable: whether it was heard is not known."""
        sent = {"authorization": f"Bearer {token or self._token}", **(headers or {})}
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        if not isinstance(body, bytes | None):
            sent["content-type"] = "application/json"
        try:
            async with self._session.request(
                method, self._base + path, data=data, headers=sent, timeout=aiohttp.ClientTimeout(total=seconds)
            ) as answer:
                read = await answer.read()
                return _Answer(answer.status, answer.headers.get("content-type", ""), read)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # The message of a foreign error may quote a header, and with it a token.
            raise PlatformUnreachable(f"{method} {path.partition('?')[0]}: {type(error).__name__}") from None
