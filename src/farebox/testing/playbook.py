"""One order through the real data path, between a scripted upstream and books in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from farebox.admission import Admission
from farebox.answers import Answer, RepeatedAnswer, Streaming
from farebox.catalog import Catalog
from farebox.core.attribution import Attribution
from farebox.core.audit import audit
from farebox.core.books import (
    HoldRow,
    TopUp,
    Transfer,
)
from farebox.core.errors import Refusal
from farebox.core.formats import Format, chat
from farebox.core.headers import RequestHead
from farebox.core.keys import digest
from farebox.core.plans import BUILT_IN
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange, Request
from farebox.identity.keys import KeyCallers, PlansInForce, new_key
from farebox.ports import Waiting
from farebox.testing.memory import MemoryStore
from farebox.testing.scripted import Forwarded, Script, ScriptedUpstream
from farebox.upstream.running import alone

PRICES = json.dumps(
    {"data": [{"id": "a/b", "pricing": {"prompt": "0.000001", "completion": "0.00001"}, "context_length": 100_000}]}
).encode()
"""The price list of a playbook's upstream: one model, `a/b`, at 0.000001 and 0.00001 USD a token."""

During = Callable[[Answer | RepeatedAnswer, bytes, MemoryStore], Awaitable[None]]
"""Called after each piece of a stream that the caller got: with the answer, the piece and the books."""


@dataclass(slots=True)
class Played:
    """What came of a playbook: what the caller got (`sent`, or a `refusal`), what the upstream was sent, what stands in
    the books. `available` is what the account may still spend, in nano-dollars; None without a limit."""

    sent: list[bytes] = field(default_factory=list)
    answer: Answer | RepeatedAnswer | None = None
    refusal: Refusal | None = None
    forwarded: list[Forwarded] = field(default_factory=list)
    holds: list[HoldRow] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    available: int | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.sent)

    @property
    def hold(self) -> HoldRow:
        """The one hold that was placed."""
        (hold,) = self.holds
        return hold

    @property
    def fares(self) -> list[int]:
        """What was posted, in nano-dollars."""
        return [transfer.amount_nanos for transfer in self.transfers if transfer.kind == "post"]

    @property
    def order(self) -> dict[str, Any]:
        """The order as the upstream was sent it; empty where it was sent none."""
        order: dict[str, Any] = json.loads(self.forwarded[0].body) if self.forwarded else {}
        return order


@dataclass(frozen=True, slots=True)
class Playbook:
    """One order through the real data path, between a scripted upstream and books in memory: its bytes, pauses and
    breaks in; the caller's bytes and the books' rows out.

    The caller is a new account of `plan` that has paid in `paid_in` nano-dollars, unless a `token` of another is given.
    A caller hangs up by calling `hang_up` on the answer, in `during`.
    """

    script: Script | Exception
    order: Mapping[str, object]
    path: str = "/chat/completions"
    wire: Format = chat
    plan: str = "paying"
    paid_in: int = 10**9
    token: str | None = None
    store: MemoryStore | None = None
    streaming: Streaming | None = None
    waiting: Waiting | None = None
    attribution: Attribution | None = None
    during: During | None = None

    def play(self) -> Played:
        """Play it to its end, in an event loop of its own.

        Raises:
            AssertionError: the audit found a difference in the books.
        """
        return asyncio.run(self._play(self.store or MemoryStore()))

    async def _play(self, store: MemoryStore) -> Played:
        account = await store.create_account("a", self.plan, 0, 1)
        key = new_key()
        await store.create_key(account.id, "", digest(key), "hint", 1)
        await store.carry_out(TopUp("t", account.id, self.paid_in, 1))
        upstream = ScriptedUpstream(self.script, pages={"/models": PRICES})
        catalog = Catalog(upstream, 300, 3600)
        await catalog.refresh()
        callers = KeyCallers(store, PlansInForce(BUILT_IN))
        streaming = self.streaming or Streaming(Deadlines())
        exchange = Exchange(
            callers=callers,
            prices=catalog,
            ledger=store,
            upstreams=alone(upstream),
            streaming=streaming,
            admission=Admission(9, 9),
            attribution=self.attribution,
        )
        played = Played(forwarded=upstream.received)
        head = RequestHead((self.token or key,), {"x-title": "t"})
        request = Request(self.path, self.wire, head, self._read_body, waiting=self.waiting)
        try:
            async with exchange.open(request) as answer:
                played.answer = answer
                await self._receive(answer, played, store)
        except Refusal as refusal:
            played.refusal = refusal
        finally:
            played.holds = await store.holds(("pending", "open", "posted", "voided"))
            played.transfers = await store.transfers(account.id)
            played.available = (await store.balance(account.id)).available_nanos
        with store.snapshot() as rows:
            differences = audit(rows).differences
            assert differences == [], differences
        return played

    async def _receive(self, answer: Answer | RepeatedAnswer, played: Played, store: MemoryStore) -> None:
        if not answer.is_stream:
            played.sent.append(await answer.read())
            return

        def take(chunk: bytes) -> Awaitable[None] | None:
            played.sent.append(chunk)
            return self.during(answer, chunk, store) if self.during else None

        await answer.stream_to(take)

    async def _read_body(self) -> bytes:
        return json.dumps(self.order).encode()
