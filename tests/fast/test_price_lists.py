"""The price list in force: from the file, and from OpenRouter's public list; kept in the books before it is used."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.core.price_files import BadPrices
from farebox.core.tariffs import KeptTariffs, Tariffs, read_kept
from farebox.core.usage import Cost, Unknown, Usage
from farebox.ports import BooksUnavailable, UpstreamUnreachable
from farebox.price_lists import PriceLists
from farebox.testing import MemoryStore
from farebox.upstream.openrouter_tariffs import read_offers

OWN = '[[prices]]\nupstream = "u"\nmodel = "m"\nprompt = "{}"\nanswer = "0.002"\n'
BORROWED = '[[prices]]\nupstream = "u"\nmodel = "m"\nopenrouter = "a/m"\n'


def page(*entries: tuple[str, dict[str, Any]]) -> bytes:
    return json.dumps({"data": [{"id": name, "pricing": pricing} for name, pricing in entries]}).encode()


class OpenRouter:
    """What is asked for its lists."""

    def __init__(self, prompt: str | None = "0.001") -> None:
        self.prompt = prompt
        self.asked = 0

    async def ask(self) -> tuple[bytes, ...]:
        self.asked += 1
        if self.prompt is None:
            raise UpstreamUnreachable("nobody there")
        return (page(("a/m", {"prompt": self.prompt, "completion": "0.002"})),)


class Shelf(MemoryStore):
    """Books that keep lists, unless they are away."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    async def keep_tariffs(self, kept: KeptTariffs) -> None:
        if self.is_away:
            raise BooksUnavailable("away")
        await super().keep_tariffs(kept)

    @property
    def versions(self) -> list[str]:
        with self.snapshot() as rows:
            return [kept.version for kept in rows.tariffs()]


def cost(tariffs: Tariffs) -> Cost | Unknown | None:
    """Of one token of the prompt."""
    found = tariffs.find("u", "m", 1)
    return None if found is None else found.cost(Usage(prompt=1))


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


def test_a_list_is_in_the_books_before_it_is_in_force(tmp_path: Path) -> None:
    file, shelf = tmp_path / "prices.toml", Shelf()
    lists = PriceLists(file, shelf, OpenRouter().ask, now_us=lambda: 7)

    async def work() -> None:
        file.write_text(OWN.format("0.001"))
        await lists.refresh()
        first = lists.current
        assert cost(first) == Cost(Decimal("0.001"))
        assert shelf.versions == [first.version]
        shelf.is_away = True
        file.write_text(OWN.format("0.002"))
        with pytest.raises(BooksUnavailable):
            await lists.refresh()
        assert lists.current is first
        shelf.is_away = False
        await lists.refresh()
        assert cost(lists.current) == Cost(Decimal("0.002"))
        file.write_text(OWN.format("0.0010") + "# as before")
        await lists.refresh()
        assert lists.current.version == first.version
        assert len(shelf.versions) == 2
        with shelf.snapshot() as rows:
            kept = [read_kept(each) for each in rows.tariffs()]
        assert [cost(each) for each in kept if each] == [Cost(Decimal("0.001")), Cost(Decimal("0.002"))]

    run(work)


def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    file, shelf = tmp_path / "prices.toml", Shelf()
    lists = PriceLists(file, shelf, OpenRouter().ask)

    async def work() -> None:
        with pytest.raises(BadPrices, match=r"prices.toml: it cannot be read"):
            await lists.refresh()
        file.write_text(OWN.format("0.001"))
        await lists.refresh()
        for wrong in (OWN.format("-1"), "prices"):
            file.write_text(wrong)
            with pytest.raises(BadPrices):
                await lists.refresh()
            assert cost(lists.current) == Cost(Decimal("0.001"))
        assert len(shelf.versions) == 1

    run(work)


def test_without_a_file_nothing_has_a_price() -> None:
    shelf, openrouter = Shelf(), OpenRouter()
    lists = PriceLists(None, shelf, openrouter.ask)
    run(lists.refresh)
    assert cost(lists.current) is None
    assert (shelf.versions, openrouter.asked) == ([], 0)


def test_borrowed_prices_follow_openrouters_list_and_end_when_it_is_too_old(tmp_path: Path) -> None:
    file, shelf, openrouter, now = tmp_path / "prices.toml", Shelf(), OpenRouter(None), [0.0]
    lists = PriceLists(file, shelf, openrouter.ask, 300, 86_400, now=lambda: now[0])

    async def work() -> None:
        file.write_text(BORROWED)
        await lists.refresh()
        told = cost(lists.current)
        assert isinstance(told, Unknown)
        assert "OpenRouter's list could not be read: nobody there" in told.reason
        for seconds, prompt, due in (
            (299, "0.001", None),
            (300, "0.001", "0.001"),
            (599, "0.003", "0.001"),
            (600, "0.003", "0.003"),
            (900, None, "0.003"),
            (600 + 86_400, None, "0.003"),
            (1200 + 86_400, None, None),
        ):
            now[0], openrouter.prompt = seconds, prompt
            await lists.refresh()
            told = cost(lists.current)
            assert (told == Cost(Decimal(due))) if due else isinstance(told, Unknown), seconds
        assert "too old" in str(cost(lists.current))
        assert openrouter.asked == 6

    run(work)


def test_a_change_of_the_file_is_noticed_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="farebox")
    file, shelf = tmp_path / "prices.toml", Shelf()
    lists = PriceLists(file, shelf, OpenRouter().ask, look_seconds=0.005)

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():  # noqa: ASYNC110 - what a file's reader does is seen, not told
                await asyncio.sleep(0.005)

    async def work() -> None:
        file.write_text(OWN.format("0.001"))
        await lists.refresh()
        watching = asyncio.create_task(lists.keep_fresh())
        file.write_text(OWN.format("0.00222"))
        await until(lambda: cost(lists.current) == Cost(Decimal("0.00222")))
        file.write_text(OWN.format("-1.0001"))
        await until(lambda: "changes nothing" in caplog.text)
        assert cost(lists.current) == Cost(Decimal("0.00222"))
        told = caplog.text.count("changes nothing")
        await asyncio.sleep(0.05)
        assert caplog.text.count("changes nothing") == told
        file.unlink()
        await until(lambda: "cannot be read" in caplog.text)
        file.write_text(OWN.format("0.00333"))
        await until(lambda: cost(lists.current) == Cost(Decimal("0.00333")))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    run(work)
    assert f"price list {lists.current.version} is in force" in caplog.text


FULL = {
    "prompt": "0.000003",
    "completion": "0.000015",
    "request": "0",
    "image": "0.0048",
    "web_search": "0.01",
    "internal_reasoning": "0",
    "input_cache_read": "0.0000003",
    "input_cache_write": "0.00000375",
}


def test_openrouters_prices_are_offered_to_the_last_digit() -> None:
    (above, prices), (longer, long) = read_offers(
        page(("a/m", {**FULL, "overrides": [{"min_prompt_tokens": 200_000, "prompt": "0.000006"}]}))
    )("a/m").prices
    assert (above, longer) == (0, 200_000)
    assert (prices.prompt, prices.answer, prices.cache_read) == (Decimal("3E-6"), Decimal("15E-6"), Decimal("3E-7"))
    # A zero beside the two says that there is no such price.
    assert (prices.reasoning, prices.cache_write_1h, prices.audio_in) == (None, None, None)
    assert (long.prompt, long.answer, long.search) == (Decimal("6E-6"), Decimal("15E-6"), Decimal("0.01"))


@pytest.mark.parametrize(
    ("pricing", "said"),
    [
        ({**FULL, "discount": 0.25}, "a discount of its own"),
        ({**FULL, "overrides": [{"utc_start": 100, "prompt": "0.1"}]}, "at certain hours"),
        ({**FULL, "overrides": [{"utc_start": 0, "min_prompt_tokens": 5, "prompt": "0.1"}]}, "at certain hours"),
        ({"prompt": "0.1"}, "no price of its prompt or its answer"),
        ({"prompt": "-1", "completion": "-1"}, "a price of it that is none"),
        ({**FULL, "input_cache_read": "NaN"}, "a price of it that is none"),
        ({**FULL, "prompt": "x"}, "cannot be read"),
        ({"prompt": "0", "completion": "0"}, "as free, which says nothing of another upstream"),
    ],
)
def test_prices_that_are_no_other_upstreams_are_not_offered(pricing: dict[str, Any], said: str) -> None:
    offer = read_offers(page(("a/m", pricing)))("a/m")
    assert offer.prices == ()
    assert said in offer.reason


def test_a_model_that_is_not_listed_is_not_offered_and_no_list_is_none() -> None:
    assert "has no `b/m`" in read_offers(page(("a/m", FULL)))("b/m").reason
    assert read_offers(b'{"data":[3,{"id":4},{"id":"a/m"}]}')("a/m").reason
    for body in (b"", b"[]", b"<html>"):
        with pytest.raises(ValueError, match="model list"):
            read_offers(body)
