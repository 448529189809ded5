"""How many tokens the prompt of an order in Anthropic's format has: counted by the upstream that it would go to, where
that counts, or else the bound that its ceiling is worked out from. Nothing is ordered, and nothing is charged."""

from msgspec import Struct

from farebox.core.callers import Caller
from farebox.core.errors import PresetNamed, Refusal
from farebox.core.formats import messages
from farebox.core.headers import RequestHead
from farebox.core.intake import Order, read_order
from farebox.core.pricing import ceiling
from farebox.exchange import Exchange
from farebox.ports import UpstreamBroke, UpstreamUnreachable

PATH = "/messages"
"""The format's."""


class Counted(Struct, frozen=True):
    """`counted_by` is the upstream's name; None: `tokens` is a bound, which no prompt exceeds."""

    tokens: int
    counted_by: str | None = None


class TokenCounts(Struct, frozen=True):
    exchange: Exchange

    async def count(self, caller: Caller, head: RequestHead, body: bytes) -> Counted:
        """Count the prompt of an order with this body, as guards let it pass.

        Raises:
            Refusal: 400, 403, 404 and 502 as for the order itself; 429, too many of this account's are being served.
        """
        exchange = self.exchange
        turn = exchange.admission.enter(caller.account.id)
        try:
            try:
                body, order = await self._read(caller, body)
            except PresetNamed as named:
                put = None if exchange.presets is None else await exchange.presets.put_in(caller, PATH, body)
                if put is None:
                    raise named from None
                body, order = await self._read(caller, put)
            most = ceiling(order.asked, None, exchange.prices.current(), caller.plan)
            at = exchange.routing.attempts(PATH, body, order.asked).at
            tokens = await self._asked_of(at.upstream, body, head) if at.model == order.model else None
        finally:
            exchange.admission.leave(caller.account.id, turn)
        return Counted(most.prompt_tokens) if tokens is None else Counted(tokens, at.upstream)

    async def _read(self, caller: Caller, body: bytes) -> tuple[bytes, Order]:
        """The body as guards let it pass, and the order in it."""
        exchange, asked = self.exchange, None
        if exchange.guards is not None:
            guarded = await exchange.guards.before(caller, PATH, messages, body)
            body, asked = guarded.body, guarded.asked
        return body, read_order(body, messages, caller.plan, exchange.names, asked)

    async def _asked_of(self, name: str, body: bytes, head: RequestHead) -> int | None:
        """What an upstream counts; None where it does not, or not now."""
        try:
            return await self.exchange.upstreams.count_tokens(name, body, head.forwarded)
        except (UpstreamUnreachable, UpstreamBroke, Refusal):
            return None
