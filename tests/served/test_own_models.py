"""What upstreams of the kinds `openai` and `anthropic` list, in all the shapes that servers have for it, over HTTP; and
what they are asked beside it."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from farebox.core.upstream import ALL_MODELS, Listing, ListKind, ListQuery, NoRecords, NoSuchList, Recorded
from farebox.core.usage import Cost
from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY
from farebox.ports import UpstreamBroke
from farebox.upstream.anthropic import Anthropic
from farebox.upstream.hosts import Host, OwnModel
from farebox.upstream.openai import OpenAi
from tests.upstreams import HttpUpstream, declared

T = TypeVar("T")

OPENAIS = {
    "openai": {"id": "m", "object": "model", "created": 1700000000, "owned_by": "system"},
    "ollama": {"id": "m", "object": "model", "created": 1700000000, "owned_by": "library"},
    "vllm": {"id": "m", "object": "model", "created": 1700000000, "owned_by": "vllm", "max_model_len": 4096},
    "llama.cpp": {"id": "m", "created": 1700000000, "meta": {"n_ctx_train": 4096, "vocab_type": 2}},
    "bare": {"id": "m"},
    "odd": {"id": "m", "created": -3.5, "max_model_len": None},
}


def asked(
    upstream: HttpUpstream, kind: type[OpenAi] | type[Anthropic], use: Callable[[Host], Awaitable[T]], **more: Any
) -> T:
    async def main() -> T:
        there = declared(upstream.url, kind="openai" if kind is OpenAi else "anthropic", **more)
        host = kind(there, "key", Deadlines(), DIRECTLY)
        try:
            return await use(host)
        finally:
            await host.close()

    return asyncio.run(main())


@pytest.mark.parametrize("server", OPENAIS)
def test_a_list_in_openais_shape_is_read_whoever_writes_it(server: str) -> None:
    pages = {"/models": {"object": "list", "data": [OPENAIS[server], {"no": "id"}, 7]}}
    with HttpUpstream(pages=pages).serving() as upstream:
        (model,) = asked(upstream, OpenAi, lambda host: host.models())
    assert model.id == "m"
    assert model.created == (0 if server in ("bare", "odd") else 1700000000)
    assert model.context_tokens == (4096 if server in ("vllm", "llama.cpp") else None)


def test_anthropics_list_is_read_page_by_page_and_not_in_circles() -> None:
    entry = {"type": "model", "display_name": "M", "created_at": "2026-01-01T00:00:00Z", "max_input_tokens": 9}
    pages = {
        "/models?limit=1000": {"data": [{**entry, "id": "a"}], "has_more": True, "last_id": "a"},
        "/models?limit=1000&after_id=a": {"data": [{**entry, "id": "b"}], "has_more": True, "last_id": "b"},
        "/models?limit=1000&after_id=b": {"data": [{**entry, "id": "c"}], "has_more": True, "last_id": "b"},
    }
    with HttpUpstream(pages=pages).serving() as upstream:
        models = asked(upstream, Anthropic, lambda host: host.models())
        assert len(upstream.asked) == 3
    assert [(each.id, each.created, each.context_tokens) for each in models] == [
        (name, 1767225600, 9) for name in ("a", "b", "c")
    ]


@pytest.mark.parametrize(("page", "says"), [({"data": "none"}, "cannot be read"), (None, "status 404")])
def test_a_list_that_cannot_be_read_is_no_empty_list(page: Any, says: str) -> None:
    pages = {"/other": {}} if page is None else {"/models": page}
    with HttpUpstream(pages=pages).serving() as upstream, pytest.raises(UpstreamBroke, match=says):
        asked(upstream, OpenAi, lambda host: host.prices())


def test_what_is_declared_by_name_is_served_without_a_list() -> None:
    async def both(host: Host) -> tuple[dict[str, OwnModel], Any]:
        assert await host.record("x") == Recorded(Cost(Decimal(0)), {})
        documents = await host.prices()
        return host.ours(documents), host.read_prices(documents)

    with HttpUpstream(pages={"/other": {}}).serving() as upstream:
        ours, prices = asked(upstream, OpenAi, both, models=("a", "b/*"), prices="free")
    assert list(ours) == list(prices.rates) == ["a"]
    assert prices.rates["a"].prompt == 0


def test_it_tells_no_prices_and_has_no_other_lists_and_no_records() -> None:
    async def every(host: Host) -> None:
        documents = await host.prices()
        prices = host.read_prices(documents)
        assert (list(prices.rates), sorted(prices.left_out)) == ([], ["m"])
        assert isinstance(await host.page(ListQuery(ListKind.PROVIDERS)), NoSuchList)
        assert await host.page(ListQuery(ListKind.EMBEDDING_MODELS)) == Listing()
        assert await host.page(ListQuery(ListKind.MODELS, (("q", "m"),))) == Listing()
        listed = await host.page(ALL_MODELS)
        assert isinstance(listed, Listing)
        assert len(listed.entries) == 1
        assert await host.record("x") == NoRecords()

    with HttpUpstream(pages={"/models": {"data": [OPENAIS["openai"]]}}).serving() as upstream:
        asked(upstream, OpenAi, every, prices="file")


def test_headers_are_the_kinds_own_and_no_callers_but_anthropics() -> None:
    given = {"http-referer": "r", "x-title": "t", "x-openrouter-categories": "c", "x-farebox-hops": "2"}
    betas = {"anthropic-beta": "a", "x-anthropic-beta": "b", "anthropic-version": "2024-01-01"}

    async def forward(host: Host) -> None:
        path = "/messages" if isinstance(host, Anthropic) else "/chat/completions"
        (await host.forward(path, b"{}", {**given, **betas}, streamed=False)).close()
        (await host.forward(path, b"{}", {}, streamed=False)).close()

    for kind in (OpenAi, Anthropic):
        with HttpUpstream(answer=[b"{}"], content_type="application/json").serving() as upstream:
            asked(upstream, kind, forward)
            first, second = upstream.heads
        assert not {"http-referer", "x-title", "x-openrouter-categories"} & set(first)
        assert first["x-farebox-hops"] == "1, 2"
        if kind is OpenAi:
            assert first["authorization"] == "Bearer key"
            assert not {"anthropic-version", "anthropic-beta", "x-api-key"} & set(first)
        else:
            assert (first["x-api-key"], first["anthropic-version"], first["anthropic-beta"]) == (
                "key",
                "2024-01-01",
                "a, b",
            )
            assert (second["anthropic-version"], "anthropic-beta" in second) == ("2023-06-01", False)
            assert "authorization" not in first
