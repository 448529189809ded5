"""From a request's body to an order: read, checked against the plan, its answer capped."""

import re
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.books import Held, PlaceHold
from farebox.core.errors import forbidden, invalid
from farebox.core.formats import Asked, Format
from farebox.core.legible import STRING, legible, not_utf_8
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling
from farebox.core.resale import in_upstreams_prices

MEMBERS_MAX = 1_000_000
"""The most members of objects and items of lists in an order, all together. 32 MiB have room for ten millions, which
take seconds to read, and gigabytes."""

_TOKENS = re.compile(STRING + rb'|[,"]', re.DOTALL)
_QUOTE = ord('"')


class Order(Struct, frozen=True):
    """A validated request. `body` is what the upstream gets: the caller's own bytes, unless `answer_cap` had to be set
    in them, which is then what is `asked`, too."""

    asked: Asked
    body: bytes
    answer_tokens: int | None
    answer_cap: int | None = None

    @property
    def model(self) -> str:
        """The model that is tried first."""
        return self.asked.models[0]


def read_asked(body: bytes, wire: Format) -> Asked:
    """What a request body asks. Raises Refusal 400 when it is not a request of this format."""
    if len(body) > MEMBERS_MAX:  # else there is no room for more
        _check_members(body)
    if not body.isascii() and (stand_ins := not_utf_8(body)):
        asked = wire.read(legible(body))
        # Each becomes U+FFFD upstream, of three bytes.
        return replace(asked, prompt_bytes=asked.prompt_bytes + 2 * stand_ins)
    return wire.read(body)


def _check_members(body: bytes) -> None:
    """Raises Refusal 400: a body has too many members and items. As far as commas tell: those in texts do not count."""
    if body.count(b",") < MEMBERS_MAX:
        return
    members = 1
    for token in _TOKENS.finditer(body):
        if token.end() - token.start() > 1:
            continue
        members += 1
        if body[token.start()] == _QUOTE:
            return  # no quote closes it: who reads the body says so
        if members > MEMBERS_MAX:
            raise invalid(f"the body has more than {MEMBERS_MAX} members and items, the most in an order")


def read_order(
    body: bytes,
    wire: Format,
    plan: Plan,
    names: Callable[[str, Plan], tuple[str, ...]] = lambda model, _: (model,),
    asked: Asked | None = None,
) -> Order:
    """Read a request body under a plan. `names` says what a model counts as for the plan (see `listed_names`);
    `asked` is what the body asks, where it was read before.

    Raises:
        Refusal: 400 when the body is not a request of this format; 403 when the plan does not allow a model; what
            `names` raises.
    """
    if asked is None:
        asked = read_asked(body, wire)
    if not plan.allows_all:
        for model in asked.models:
            if (refusing := plan.refusing(*names(model, plan))) is not None:
                raise forbidden(f"{refusing} does not include the model `{model}`")
    if plan.shows == "fare" and b"max_price" in body:
        body = in_upstreams_prices(body, plan)
    order = Order(asked, body, asked.answer_tokens)
    return order if plan.answer_tokens_max is None else capped(order, wire, plan.answer_tokens_max)


def capped(order: Order, wire: Format, answer_tokens: int) -> Order:
    """The order with its answer capped at `answer_tokens`; unchanged if its own cap is lower or its answer has no
    tokens."""
    if not order.asked.answers or (order.answer_tokens is not None and order.answer_tokens <= answer_tokens):
        return order
    body = wire.capped(order.body, answer_tokens)
    asked = replace(order.asked, answer_tokens=answer_tokens)
    return replace(order, asked=asked, body=body, answer_tokens=answer_tokens, answer_cap=answer_tokens)


def without_body(order: Order) -> Order:
    """An order that was sent. Its body may be long, and is not kept for as long as a stream goes on."""
    return replace(order, body=b"")


def cap_within(held: Held, place: PlaceHold, most: Ceiling, plan: Plan) -> int | None:
    """The answer cap under which the order costs no more than was set aside, and takes no more tokens than this minute
    has left; None where it needs no cap for that."""
    caps: list[int] = []
    if held.amount_nanos < place.wanted_nanos:
        caps.append(most.tokens_covered(plan, held.amount_nanos))
    if held.tokens is not None and held.tokens < place.wanted_tokens:
        caps.append(most.tokens_within(held.tokens))
    return min(caps) if caps else None
