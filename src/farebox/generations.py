"""The record of a generation: Farebox's own, joined with the upstream's once there is one; and what the upstream keeps
of its prompt and answer."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox import clock
from farebox.core.books import HoldRow, Transfer
from farebox.core.callers import Account
from farebox.core.errors import Refusal, broken, unknown, unreachable
from farebox.core.kinds import units_used
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.money import format_usd, whole_events
from farebox.core.reading import is_null
from farebox.core.resale import fare_number, without_amounts
from farebox.core.upstream import AskedTooOften, Failed, Listing, NoRecords, NotYet, Recorded, Unreadable
from farebox.ports import Books, UpstreamBroke, Upstreams, UpstreamUnreachable

NULLABLE = (
    "api_type app_id cache_discount cancelled external_user finish_reason generation_time http_referer latency"
    " moderation_latency native_finish_reason native_tokens_cached native_tokens_completion"
    " native_tokens_completion_images native_tokens_prompt native_tokens_reasoning num_fetches"
    " num_input_audio_prompt num_media_completion num_media_prompt num_search_results preset_id provider_name"
    " provider_responses router service_tier streamed tokens_completion tokens_prompt upstream_id"
    " upstream_inference_cost user_agent web_search_engine workspace_id"
).split()
"""Members that OpenRouter's SDKs demand and that may be null; eight others may not (OpenAPI: GenerationResponse)."""

API_TYPES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("chat", "messages", "responses"), "completions"),
        "embeddings": "embeddings",
        "rerank": "rerank",
        "images": "image",
        "speech": "tts",
        "transcriptions": "stt",
        "videos": "video",
    }
)
"""OpenRouter's words for kinds of orders."""

OPERATORS_OWN = ("app_id", "workspace_id", "user_agent")
"""Members about the operator's account at the upstream, which callers do not see."""


RECORD_SECONDS = 2.0
"""How long the upstream may take to find its record; after that, callers get what the books know."""

SETTLING_SECONDS = 1.0
SETTLING_PAUSE_SECONDS = 0.05
"""How long to wait for an order to be settled, and how often to look: a stream's last server-sent event goes out a
moment before its fare is booked."""

CONTENT_SECONDS = 10.0
"""How long the upstream may take to find a prompt and an answer, which may be long."""

_Booked = tuple[HoldRow, Transfer | None]
"""An order's hold, and the transfer that ended it, if one has."""


class Generations:
    """Records of the orders served, each for the account that placed it."""

    def __init__(self, books: Books, upstreams: Upstreams) -> None:
        self._books = books
        self._upstreams = upstreams

    async def find(self, account: Account, generation_id: str, *, shows_cost: bool = True) -> dict[str, object]:
        """An account's own generation as the `data` of `GET /generation`: what the books know, the upstream's record if
        there is one, and the fare.

        `total_cost` is the one in the upstream's record, or in its answer. `is_byok` is false where the upstream has no
        record: the caller brought no key. `farebox_fare_usd` and `farebox_fare_events` are null until the order is
        posted. Where the cost is not shown, each amount is the fare, and of the upstream's record what is known to tell
        no other.

        Raises:
            Refusal: 404, the generation is not the account's, or its cost is in neither the books nor a record yet;
                502, the books do not know the cost, and the upstream cannot be asked now; 424, its record cannot be
                read.
        """
        booked = await self._books.generation(account.id, generation_id)
        if booked is None:
            raise unknown(f"Generation {generation_id[:200]} not found")
        record: Mapping[str, Raw] = {}
        no_record: Refusal | None = None
        try:
            record = await self._record(booked[0])
        except Refusal as refusal:
            no_record = refusal
        hold, end = await self._settled(account, generation_id, booked)
        if end is None and (no_record is not None or not record):
            if no_record is None or no_record.status == 404:
                raise _not_known(hold, shows_cost=shows_cost)
            raise no_record
        if not shows_cost:
            if end is None:
                raise _not_known(hold, shows_cost=False)
            return _fare_alone(hold, end, record)
        return _joined(hold, end, record)

    async def content(self, account: Account, generation_id: str) -> Raw:
        """What the upstream keeps of the prompt and the answer of an account's own generation, as the `data` of `GET
        /generation/content`; without its hosts' words on what failed, which may be about the operator's account there.
        Nothing of it is kept here, nor by this.

        Raises:
            Refusal: 404, the generation is not the account's, or its upstream keeps nothing of it, or not for the
                operator's key; 502, the upstream cannot be asked now; 424, its answer cannot be read.
        """
        booked = await self._books.generation(account.id, generation_id)
        if booked is None:
            raise unknown(f"Generation {generation_id[:200]} not found")
        try:
            async with asyncio.timeout(CONTENT_SECONDS):
                answer = await self._upstreams.kept_content(booked[0])
        except TimeoutError as error:
            raise unreachable(f"The upstream does not answer within {CONTENT_SECONDS:g} s") from error
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream cannot be asked now: {error}") from error
        match answer:
            case Listing(data=data) if not is_null(data):
                return _content(data)
            case Failed():
                raise unreachable(f"The upstream answered with {answer.answer}")
            case Unreadable(reason=reason):
                raise broken(f"The upstream's answer cannot be read: {reason}")
            case _:
                raise unknown(
                    f"Generation {generation_id}: nothing of its prompt and answer is kept. This gateway keeps none,"
                    " and its upstream has none that may be read; keep yourself what you will need"
                )

    async def _settled(self, account: Account, generation_id: str, booked: _Booked) -> _Booked:
        """The order as it is booked once it is settled, or after SETTLING_SECONDS."""
        for _ in range(round(SETTLING_SECONDS / SETTLING_PAUSE_SECONDS)):
            if booked[0].state != "pending":
                break
            await asyncio.sleep(SETTLING_PAUSE_SECONDS)
            booked = await self._books.generation(account.id, generation_id) or booked
        return booked

    async def _record(self, hold: HoldRow) -> Mapping[str, Raw]:
        """The members of the upstream's record; none where it keeps no records. Raises Refusal: 404, there is none yet;
        502, the upstream cannot be asked now; 424, it cannot be read."""
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                answer = await self._upstreams.record(hold)
        except TimeoutError as error:
            raise unreachable(f"The upstream does not answer within {RECORD_SECONDS:g} s") from error
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream cannot be asked now: {error}") from error
        match answer:
            case Recorded(members=members):
                if isinstance(members, Unreadable):
                    raise broken(f"The upstream's record cannot be read: {members.reason}")
                return members
            case NoRecords():
                return {}
            case NotYet():
                raise unknown("The upstream has no record of it yet")
            case AskedTooOften() | Failed():
                raise unreachable(f"The upstream answered with {answer.answer}")


class _Told(Struct):
    error: Raw | UnsetType = UNSET


_decode_told = msgspec.json.Decoder(_Told).decode
_decode_attempts = msgspec.json.Decoder(list[Fields]).decode

_NULL = Raw(b"null")


def _content(data: Raw) -> Raw:
    """The same without `raw`, of the error and of those before it."""
    told = decoded_or(_decode_told, data, _Told()).error
    if told is UNSET or is_null(told):
        return data
    error = decoded_or(decode_fields, told, Fields())
    attempts = decoded_or(_decode_attempts, error.get("previous_errors"), list[Fields]())
    earlier = Raw(msgspec.json.encode([{**each, "raw": _NULL} for each in attempts]))
    fields = decoded_or(decode_fields, data, Fields())
    return written({**fields, "error": written({**error, "raw": _NULL, "previous_errors": earlier})})


def _not_known(hold: HoldRow, *, shows_cost: bool) -> Refusal:
    """404: OpenRouter's clients reject a record without a cost, and an unknown one is neither guessed nor zero."""
    reason = hold.reason if shows_cost else without_amounts(hold.reason or "")
    why = f" ({reason})" if reason else ""
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


_OF_THE_UPSTREAM = {"cache_discount", "upstream_inference_cost", "upstream_id", "provider_responses"}
_TOLD_OF_RECORD = frozenset(NULLABLE) - _OF_THE_UPSTREAM
"""Of an upstream's record, what tells neither its cost nor its name for the order."""


def _fare_alone(hold: HoldRow, end: Transfer, upstream: Mapping[str, Raw]) -> dict[str, object]:
    """The record of an order that has ended, as those see it who are told the fare alone."""
    fare = fare_number(end.amount_nanos if end.is_fare else 0)
    told = _joined(hold, end, {name: value for name, value in upstream.items() if name in _TOLD_OF_RECORD})
    events = whole_events(end.amount_nanos) if end.is_fare else None
    return told | {"usage": fare, "total_cost": fare, "farebox_fare_events": events}


def _joined(hold: HoldRow, end: Transfer | None, upstream: Mapping[str, Raw]) -> dict[str, object]:
    posted = end if end is not None and end.is_fare else None
    own: dict[str, object] = {
        "id": hold.generation_id,
        "model": hold.served_model or hold.model,
        "created_at": clock.iso(hold.created_us, "auto"),
        "streamed": hold.streamed,
        "tokens_prompt": hold.prompt_tokens,
        "tokens_completion": hold.answer_tokens,
        "api_type": API_TYPES.get(hold.kind or ""),
        "num_media_completion": hold.units if hold.kind == "images" else None,
        "origin": "",
        "data_region": "global",
        "is_byok": False,
    }
    if end is not None:
        # An order that was voided cost nothing.
        cost = Raw(f"{end.cost or Decimal(0):f}".encode())
        own |= {"usage": cost, "total_cost": cost}
    recorded = {name: value for name, value in upstream.items() if not is_null(value)}
    return {
        **dict.fromkeys(NULLABLE),
        **own,
        **recorded,
        **dict.fromkeys(OPERATORS_OWN),
        "farebox_state": hold.state,
        "farebox_kind": hold.kind,
        "farebox_units": units_used(hold.kind, hold.units) if hold.state != "voided" else {},
        "farebox_fare_events": posted.events if posted else None,
        "farebox_fare_usd": Raw(format_usd(posted.amount_nanos).encode()) if posted else None,
    }
