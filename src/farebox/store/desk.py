"""A thread of its own with a connection of its own, for what is rare, or must not wait for orders."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

from farebox.deadlines import Deadlines
from farebox.ports import BooksUnavailable
from farebox.store.engine import Db, Engine
from farebox.store.rows import Row
from farebox.store.threads import Worker

T = TypeVar("T")


class Desk:
    """Work on the books, one piece after the other; `db` is for its thread alone. Raises BooksUnavailable."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._thread = Worker(name)
        self._deadlines = Deadlines()
        try:
            self.db = engine.connect()
        except engine.errors as error:
            raise BooksUnavailable(f"the books could not be opened: {engine.said(error)}") from error

    async def close(self) -> None:
        with suppress(*self._engine.errors):
            await self._thread.close(self.db.close)

    async def do(self, work: Callable[[], T]) -> T:
        """Raises BooksUnavailable: they could not be used; or they did not answer in time, and whether the work is done
        is in doubt. What is `conflicting` is raised as it is: who writes a row may know what it meets."""
        try:
            async with self._deadlines.within(self._engine.answer_seconds):
                return await self._thread.do(work)
        except self._engine.conflicting:
            raise
        except self._engine.errors as error:
            raise BooksUnavailable(f"the books could not be used: {self._engine.said(error)}") from error
        except TimeoutError as error:
            message = f"the books did not answer within {self._engine.answer_seconds:g} s"
            raise BooksUnavailable(message, is_in_doubt=True) from error

    def transaction(self) -> AbstractContextManager[Db]:
        """Within work: write, all of it or nothing."""
        return self._engine.transaction(self.db)

    async def rows(self, turn: Callable[[Row], T], statement: str, given: Any = ()) -> list[T]:
        """All that is found, each row turned into a value."""
        return await self.do(lambda: [turn(row) for row in self.db.execute(statement, given)])

    async def row(self, turn: Callable[[Row], T], statement: str, given: Any = ()) -> T | None:
        """The first that is found."""
        found = await self.rows(turn, statement, given)
        return found[0] if found else None

    async def change(self, work: Callable[[Db], T]) -> T:
        """Do work in a transaction of its own."""

        def change() -> T:
            with self.transaction() as db:
                return work(db)

        return await self.do(change)

    async def write(self, statement: str, given: Any) -> int:
        """Change rows in a transaction of their own; how many."""
        return await self.change(lambda db: db.execute(statement, given).rowcount)


class OnDesk:
    """A store that does its work at a desk of its own."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self._sql = engine.sql
        self._desk = Desk(engine, name)

    async def close(self) -> None:
        await self._desk.close()
