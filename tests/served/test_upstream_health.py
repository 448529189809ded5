"""Two nodes on one database agree on which upstreams are left alone."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from farebox.core.attempts import NotReached
from farebox.core.health import FAILURES_MAX
from farebox.core.routing import Candidate
from farebox.store.books import SqlStore
from farebox.store.prepare import engine_of
from farebox.upstream_health import Health
from tests.books import new_books
from tools.postgres import Cluster

CANDIDATE = Candidate("u", "a/b", frozenset(("/chat/completions",)))


def url_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if kind == "postgres":
        cluster: Cluster = request.getfixturevalue("postgres")
        return cluster.new_books()
    new_books(folder / "books.db")
    return f"sqlite:///{folder}/books.db"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_one_node_finds_out_the_other_knows_soon(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = url_of(kind, request, tmp_path)

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():  # noqa: ASYNC110 - what changes is in the database
                await asyncio.sleep(0.02)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            nodes: list[Health] = []
            for name in ("one", "other"):
                store = await SqlStore.open(engine_of(url), name)
                stack.push_async_callback(store.close)
                nodes.append(Health(store))
            running = [asyncio.create_task(node.run()) for node in nodes]
            one, other = nodes
            for _ in range(FAILURES_MAX):
                one.ended(CANDIDATE, one.began(CANDIDATE), NotReached())
            await until(lambda: other.condition(CANDIDATE).alone_until_us > 0)
            # Its time is over, and the other's order is served.
            await until(lambda: other.condition(CANDIDATE).alone_until_us == 0)
            other.ended(CANDIDATE, other.began(CANDIDATE), None)
            await until(lambda: [each.until_us for each in one.standings()] == [0])
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    asyncio.run(main())
