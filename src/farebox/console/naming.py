"""Names in the place of numbers: people know accounts and keys by them."""

from collections.abc import Iterable

from farebox.console.reading import SqlConsole
from farebox.console.requests import Viewer
from farebox.core.callers import Key
from farebox.core.errors import unknown

_NO_KEY = "There is no such key"


def key_name(key: Key) -> str:
    """What a key is called: its label, or, where it has none, what lists show of it."""
    return key.label or key.hint


class Names:
    """The names that one page needs, each looked up once."""

    def __init__(self, reading: SqlConsole) -> None:
        self._reading = reading
        self._accounts: dict[int, str] = {}
        self._keys: dict[int, str] = {}

    async def load_keys(self, key_ids: Iterable[int]) -> None:
        """Look up many keys, and their accounts, at once."""
        for key_id, key, account_id, account in await self._reading.names_of_keys(key_ids):
            self._keys[key_id], self._accounts[account_id] = key, account

    async def account(self, account_id: int) -> str:
        if account_id not in self._accounts:
            found = await self._reading.account(account_id)
            self._accounts[account_id] = f"account {account_id}" if found is None else found[0].name
        return self._accounts[account_id]

    async def key(self, key_id: int) -> str:
        if key_id not in self._keys:
            found = await self._reading.key(key_id)
            self._keys[key_id] = f"key {key_id}" if found is None else key_name(found[1])
            if found is not None:
                self._accounts[found[0].id] = found[0].name
        return self._keys[key_id]

    async def check_sees_key(self, viewer: Viewer, key_id: int) -> None:
        """Raises Refusal 404: there is no such key, or it is another account's, of which not even the name is told."""
        found = await self._reading.key(key_id)
        if found is None:
            raise unknown(_NO_KEY)
        viewer.check_sees(found[0].id, _NO_KEY)
