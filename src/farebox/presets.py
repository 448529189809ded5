"""Presets that orders name, put into them: each account's own."""

from farebox.core.callers import Caller
from farebox.core.errors import unknown
from farebox.core.presets import PLACES, SLUG, named_in, with_preset
from farebox.ports import PresetShelf


class Presets:
    def __init__(self, shelf: PresetShelf) -> None:
        self._shelf = shelf

    async def put_in(self, caller: Caller, path: str, body: bytes) -> bytes | None:
        """The body of an order with its preset put into it, the latest version; None where the order can have none.

        Raises:
            Refusal: 404, the account has no such preset; 400, the order names two, or no model is left to ask.
            BooksUnavailable: it cannot be looked up now.
        """
        named = named_in(body) if path in PLACES else None
        if named is None:
            return None
        is_slug = SLUG.fullmatch(named.slug)
        preset = await self._shelf.preset(caller.account.id, named.slug) if is_slug else None
        if preset is None:
            raise unknown(f"there is no preset `{named.slug[:200]}` in this account; GET /api/v1/presets lists its own")
        return with_preset(path, body, named, preset)
