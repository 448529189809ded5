"""One generation's record: Farebox's own, joined with the upstream's."""

from datetime import UTC, datetime

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import broken, unknown, unreachable
from farebox.core.ledger import HoldRow, Transfer
from farebox.core.money import format_usd
from farebox.core.reading import UNREADABLE, is_null
from farebox.ports import Account, Books, Upstream, UpstreamBroke, UpstreamUnreachable

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


class _Record(Struct):
    data: dict[str, Raw]


_decode_record = msgspec.json.Decoder(_Record).decode


class Generations:
    """Records of the orders served, each for the account that placed it."""

    def __init__(self, books: Books, upstream: Upstream) -> None:
        self._books = books
        self._upstream = upstream

    async def find(self, account: Account, generation_id: str) -> dict[str, object]:
        """An account's own generation: the upstream's record, and beside it what the caller pays.

        `total_cost` is the upstream's. `farebox_fare_usd` and `farebox_fare_events` are null until the order is posted.

        Raises:
            Refusal: 404, it is not the account's, or the upstream has not written it down yet; 502, the upstream
                cannot be asked now.
        """
        found = await self._books.generation(account.id, generation_id)
        if found is None:
            raise _not_found(generation_id)
        return _joined(*found, await self._record(generation_id))

    async def _record(self, generation_id: str) -> dict[str, Raw]:
        try:
            fetched = await self._upstream.fetch("/generation", (("id", generation_id),))
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream cannot be asked now: {error}") from error
        if fetched.status == 404:
            raise _not_found(generation_id)
        if fetched.status != 200:
            raise unreachable(f"The upstream answered with status {fetched.status}")
        try:
            return _decode_record(fetched.body).data
        except UNREADABLE as error:
            raise broken(f"The upstream's record cannot be read: {error}") from error


def _not_found(generation_id: str) -> Exception:
    return unknown(f"Generation {generation_id[:200]} not found")


def _joined(hold: HoldRow, end: Transfer | None, upstream: dict[str, Raw]) -> dict[str, object]:
    posted = end if end is not None and end.is_fare else None
    own: dict[str, object] = {
        "id": hold.generation_id,
        "model": hold.served_model or hold.model,
        "created_at": datetime.fromtimestamp(hold.created_us / 1_000_000, UTC).isoformat().replace("+00:00", "Z"),
        "streamed": hold.streamed,
        "tokens_prompt": hold.prompt_tokens,
        "tokens_completion": hold.answer_tokens,
        "origin": "",
        "data_region": "global",
    }
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
