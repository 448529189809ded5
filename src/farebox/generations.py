"""One generation's record: Farebox's own, joined with the upstream's as soon as that has one."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal

from msgspec import Raw

from farebox import clock
from farebox.core.books import HoldRow, Transfer
from farebox.core.callers import Account
from farebox.core.errors import Refusal, broken, unknown, unreachable
from farebox.core.money import format_usd
from farebox.core.reading import is_null
from farebox.core.upstream import AskedTooOften, Failed, NotYet, Recorded, Unreadable
from farebox.ports import Books, Upstream, UpstreamBroke, UpstreamUnreachable

NULLABLE = (
    "api_type app_id cache_discount cancelled external_user finish_reason generation_time http_referer latency"
    " moderation_latency native_finish_reason native_tokens_cached native_tokens_completion"
    " native_tokens_completion_images native_tokens_prompt native_tokens_reasoning num_fetches"
    " num_input_audio_prompt num_media_completion num_media_prompt num_search_results preset_id provider_name"
    " provider_responses router service_tier streamed tokens_completion tokens_prompt upstream_id"
    " upstream_inference_cost user_agent web_search_engine workspace_id"
).split()
"""Members that OpenRouter's SDKs demand and that may be null; eight more may not be (OpenAPI: GenerationResponse)."""

OPERATORS_OWN = ("app_id", "workspace_id", "user_agent")
"""What tells of the operator's account with the upstream, and not of the caller's order."""


RECORD_SECONDS = 2.0
"""How long the upstream may take to find its record: what the books know is told after that without it."""

SETTLING_SECONDS = 1.0
SETTLING_PAUSE_SECONDS = 0.05
"""How long an order's end is waited for, and how often it is looked at: a stream's last event goes out a moment before
its fare is booked."""

_Found = tuple[HoldRow, Transfer | None]


class Generations:
    """Records of the orders served, each for the account that placed it."""

    def __init__(self, books: Books, upstream: Upstream) -> None:
        self._books = books
        self._upstream = upstream

    async def find(self, account: Account, generation_id: str) -> dict[str, object]:
        """An account's own generation: what the books know, the upstream's record where it has one, and what the caller
        pays.

        `total_cost` is the upstream's: its record's, or what its answer said. `is_byok` is false where only the books
        speak: the caller brought no key. `farebox_fare_usd` and `farebox_fare_events` are null until the order is
        posted.

        Raises:
            Refusal: 404, it is not the account's, or neither the books nor the upstream know what it cost yet; 502, the
                books do not, and the upstream cannot be asked now; 424, it tells what cannot be read.
        """
        found = await self._books.generation(account.id, generation_id)
        if found is None:
            raise unknown(f"Generation {generation_id[:200]} not found")
        record: Mapping[str, Raw] = {}
        untold: Refusal | None = None
        try:
            record = await self._record(generation_id)
        except Refusal as refusal:
            untold = refusal
        hold, end = await self._settled(account, generation_id, found)
        if untold is not None and end is None:
            raise _not_known(hold) if untold.status == 404 else untold
        return _joined(hold, end, record)

    async def _settled(self, account: Account, generation_id: str, found: _Found) -> _Found:
        """The same, once its order has ended, or after SETTLING_SECONDS."""
        for _ in range(round(SETTLING_SECONDS / SETTLING_PAUSE_SECONDS)):
            if found[0].state != "pending":
                break
            await asyncio.sleep(SETTLING_PAUSE_SECONDS)
            found = await self._books.generation(account.id, generation_id) or found
        return found

    async def _record(self, generation_id: str) -> Mapping[str, Raw]:
        """Raises Refusal 404, there is none yet; 502, the upstream cannot be asked now; 424, it cannot be read."""
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                answer = await self._upstream.record(generation_id)
        except TimeoutError as error:
            raise unreachable(f"The upstream does not answer within {RECORD_SECONDS:g} s") from error
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream cannot be asked now: {error}") from error
        match answer:
            case Recorded(members=members):
                if isinstance(members, Unreadable):
                    raise broken(f"The upstream's record cannot be read: {members.reason}")
                return members
            case NotYet():
                raise unknown("The upstream has no record of it yet")
            case AskedTooOften() | Failed():
                raise unreachable(f"The upstream answered with {answer.answer}")


def _not_known(hold: HoldRow) -> Refusal:
    """OpenRouter's clients take no record without a cost, and an unknown one is neither a guess nor zero."""
    why = f" ({hold.reason})" if hold.reason else ""
    return unknown(
        f"Generation {hold.generation_id}: what it cost is not known yet{why}."
        f" At most ${format_usd(hold.amount_nanos)} is set aside for it; ask again later",
        generation_id=hold.generation_id,
        model=hold.served_model or hold.model,
        streamed=hold.streamed,
        tokens_prompt=hold.prompt_tokens,
        tokens_completion=hold.answer_tokens,
        farebox_state=hold.state,
        farebox_held_usd=format_usd(hold.amount_nanos),
    )


def _joined(hold: HoldRow, end: Transfer | None, upstream: Mapping[str, Raw]) -> dict[str, object]:
    posted = end if end is not None and end.is_fare else None
    own: dict[str, object] = {
        "id": hold.generation_id,
        "model": hold.served_model or hold.model,
        "created_at": clock.iso(hold.created_us, "auto"),
        "streamed": hold.streamed,
        "tokens_prompt": hold.prompt_tokens,
        "tokens_completion": hold.answer_tokens,
        "origin": "",
        "data_region": "global",
        "is_byok": False,
    }
    if end is not None:
        # An order that was voided cost nothing.
        cost = Raw(f"{end.cost or Decimal(0):f}".encode())
        own |= {"usage": cost, "total_cost": cost}
    told = {name: value for name, value in upstream.items() if not is_null(value)}
    return {
        **dict.fromkeys(NULLABLE),
        **own,
        **told,
        **dict.fromkeys(OPERATORS_OWN),
        "farebox_state": hold.state,
        "farebox_fare_events": posted.events if posted else None,
        "farebox_fare_usd": Raw(format_usd(posted.amount_nanos).encode()) if posted else None,
    }
