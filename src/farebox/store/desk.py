"""A thread of its own with a connection of its own, for what is rare, or must not wait for orders."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from farebox.ports import BooksUnavailable
from farebox.store.engine import Db, Engine

T = TypeVar("T")


class Desk:
    """Work on the books, one piece after the other; `db` is for its thread alone."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.db = engine.connect()

    async def close(self) -> None:
        await self.do(self.db.close)
        self._thread.shutdown()

    async def do(self, work: Callable[[], T]) -> T:
        """Raises BooksUnavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except self._engine.unavailable as error:
            raise BooksUnavailable(f"the books could not be used: {error}") from error

    def transaction(self) -> AbstractContextManager[Db]:
        """Within work: write, all of it or nothing."""
        return self._engine.transaction(self.db)

    async def rows(self, statement: str, given: Any = ()) -> list[Any]:
        """All that is found."""
        return await self.do(lambda: self.db.execute(statement, given).fetchall())

    async def write(self, statement: str, given: Any) -> int:
        """Change rows in a transaction of their own; how many."""

        def work() -> int:
            with self.transaction() as db:
                return db.execute(statement, given).rowcount

        return await self.do(work)
