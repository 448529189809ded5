"""Settlements on a node's own disk: all that was said comes back, each once its process has gone, a torn line never."""

import asyncio
import os
import resource
from decimal import Decimal
from pathlib import Path

import pytest

from farebox.core.books import Command, KeptAnswer, Outcome, Settle
from farebox.core.tariffs import Priced
from farebox.core.usage import Cost, Nothing, Unknown, Usage
from farebox.late_settlements import LateSettlements
from farebox.ports import BooksUnavailable
from farebox.store.spool import ROWS_MAX, Spool
from farebox.testing import MemoryStore

SETTLES = [
    Settle(
        hold_id="h1",
        verdict=Cost(Decimal("3.00E-7")),
        created_us=1,
        generation_id="gen-1",
        served_model="a/b",
        prompt_tokens=2,
        answer_tokens=3,
        answer=KeptAnswer("h1", "text/event-stream", b"\x00data"),
    ),
    Settle(hold_id="h2", verdict=Nothing(), created_us=2),
    Settle(hold_id="h3", verdict=Unknown("it broke off"), created_us=3, generation_id="gen-3"),
]


def keep(spool: Spool, *settles: Settle) -> None:
    async def main() -> None:
        for settle in settles:
            await spool.add(settle)

    asyncio.run(main())


def test_what_a_process_kept_is_there_for_the_next_once_it_has_gone(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "spool"
    living, next_one = Spool(folder, "one"), Spool(folder, "two")
    assert next_one.left_behind() == []
    keep(living, *SETTLES)
    assert next_one.left_behind() == [], "it is alive, and books them itself"
    (folder / "three").write_bytes((folder / "one").read_bytes())
    assert next_one.left_behind() == [("three", SETTLES)]
    next_one.remove("three")
    assert next_one.left_behind() == []
    living.clear()
    assert list(folder.iterdir()) == []
    keep(living, SETTLES[0])
    assert len((folder / "one").read_bytes().splitlines()) == 1
    assert (folder / "one").stat().st_mode & 0o777 == 0o600
    living.clear()


def test_by_which_prices_and_for_what_comes_back_too(tmp_path: Path) -> None:
    used = Priced(version="1", model="m", at_us=4, usage=Usage(prompt=5, terms="flex", is_mixed=True))
    kept = Settle(hold_id="h4", verdict=Unknown("no price"), created_us=4, upstream="u", priced=used)
    living = Spool(tmp_path, "one")
    keep(living, kept)
    (tmp_path / "two").write_bytes((tmp_path / "one").read_bytes())
    assert Spool(tmp_path, "three").left_behind() == [("two", [kept])]
    living.clear()


def test_what_an_earlier_version_kept_is_read(tmp_path: Path) -> None:
    unnamed = b'"generation_id":null,"served_model":null,"prompt_tokens":null,"answer_tokens":null,"answer":null}'
    answer = b'{"hold_id":"h1","content_type":"text/event-stream","body":"AGRhdGE="}'
    lines = [
        b'{"hold_id":"h1","verdict":"cost","said":"3.00E-7","created_us":1,"generation_id":"gen-1","served_model":"a/b",'
        b'"prompt_tokens":2,"answer_tokens":3,"answer":%b}' % answer,
        b'{"hold_id":"h2","verdict":"nothing","said":"","created_us":2,%b' % unnamed,
        b'{"hold_id":"h3","verdict":"unknown","said":"it broke off","created_us":3,%b'
        % unnamed.replace(b"null", b'"gen-3"', 1),
    ]
    (tmp_path / "before").write_bytes(b"\n".join(lines) + b"\n")
    assert Spool(tmp_path, "one").left_behind() == [("before", SETTLES)]


def test_answers_that_end_together_are_all_kept(tmp_path: Path) -> None:
    async def main() -> None:
        for number in range(50):
            spool = Spool(tmp_path, f"{number}")
            await asyncio.gather(*(spool.add(settle) for settle in SETTLES))
            assert len((tmp_path / f"{number}").read_bytes().splitlines()) == len(SETTLES)
            spool.clear()

    asyncio.run(main())


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "one")
    keep(spool, *SETTLES)
    whole = (tmp_path / "one").read_bytes()
    spool.clear()
    for end in range(len(whole)):
        (tmp_path / "another").write_bytes(whole[:end])
        ((_, settles),) = spool.left_behind()
        assert settles == SETTLES[: len(settles)]
        assert len(settles) in (whole[:end].count(b"\n"), whole[:end].count(b"\n") + 1)


def test_what_comes_after_a_line_that_the_disk_cut_off_is_read(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    spool, folder = Spool(tmp_path / "kept", "one"), tmp_path / "kept"
    keep(spool, SETTLES[1])
    try:
        # As where the disk is full: some of the bytes are taken.
        resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "one").stat().st_size + 100, before[1]))
        keep(spool, SETTLES[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    keep(spool, SETTLES[2])
    (folder / "two").write_bytes((folder / "one").read_bytes())
    assert spool.left_behind() == [("two", SETTLES[1:])]
    spool.clear()


def test_what_is_no_settlement_is_left_alone_and_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A volume's own folder, and the books themselves where the setting names the folder that they are in."""
    (tmp_path / "lost+found").mkdir()
    os.mkfifo(tmp_path / "pipe")
    others = {"farebox.db": b"SQLite format 3\0\n\n", "notes": b"{}\n", "settlements.bak": b"x"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)

    async def main() -> None:
        spool = Spool(tmp_path, "one")
        await spool.add(SETTLES[1])
        (tmp_path / "two").write_bytes((tmp_path / "one").read_bytes())
        late = LateSettlements(MemoryStore(), spool)
        await late.add(SETTLES[2])
        running = asyncio.create_task(late.run())
        await asyncio.sleep(1.5)
        running.cancel()
        assert late.waiting == 0

    asyncio.run(main())
    assert {path.name for path in tmp_path.iterdir()} == {"lost+found", "pipe", *others}
    assert {name: (tmp_path / name).read_bytes() for name in others} == others
    told = [record.getMessage() for record in caplog.records if "left alone" in record.getMessage()]
    assert len(told) == len(others), "each once"


def test_a_file_with_a_line_that_cannot_be_read_stays_when_the_others_are_booked(tmp_path: Path) -> None:
    """A later version may have written it."""
    spool = Spool(tmp_path, "one")
    keep(spool, SETTLES[1])
    line = (tmp_path / "one").read_bytes()
    spool.clear()
    (tmp_path / "two").write_bytes(b'{"hold_id":"h9","verdict":{"type":"later"},"created_us":1}\n' + line)
    for _ in range(2):
        assert spool.left_behind() == [("two", [SETTLES[1]])]
    spool.remove("two")
    assert spool.left_behind() == []
    assert (tmp_path / "two").exists()


def test_a_disk_that_fails_too_does_not_fail_the_order(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    keep(Spool(tmp_path / "file" / "folder", "one"), *SETTLES)


def test_it_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "one")
    spool._rows = ROWS_MAX
    keep(spool, *SETTLES)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_booked_holds_up_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What another process left may be refused for as long as it is there."""

    class Refusing(MemoryStore):
        async def carry_out(self, command: Command) -> Outcome:
            if isinstance(command, Settle) and command.hold_id == "h1":
                raise BooksUnavailable("the books refused it")
            return await super().carry_out(command)

    async def main() -> LateSettlements:
        spool = Spool(tmp_path, "one")
        for name, settle in (("a", SETTLES[0]), ("b", SETTLES[1])):
            await spool.add(settle)
            (tmp_path / name).write_bytes((tmp_path / "one").read_bytes())
            spool.clear()
        late = LateSettlements(Refusing(), spool)
        await late.add(SETTLES[2])
        running = asyncio.create_task(late.run())
        await asyncio.sleep(1.5)
        running.cancel()
        return late

    late = asyncio.run(main())
    assert late.waiting == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [record.getMessage() for record in caplog.records if "yet" in record.getMessage()] == [
        "settlements kept as a cannot be booked yet: the books refused it"
    ]


def test_what_is_of_other_books_stays_where_it_is(tmp_path: Path) -> None:
    """Two databases were served from one folder: the other's server will come for it."""

    async def main() -> None:
        spool = Spool(tmp_path, "one")
        for settle in SETTLES:
            await spool.add(settle)
        (tmp_path / "strange").write_bytes((tmp_path / "one").read_bytes())
        spool.clear()
        await spool.add(SETTLES[1])
        (tmp_path / "void").write_bytes((tmp_path / "one").read_bytes())
        spool.clear()
        running = asyncio.create_task(LateSettlements(MemoryStore(), spool).run())
        await asyncio.sleep(0.1)
        running.cancel()

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["strange"]
