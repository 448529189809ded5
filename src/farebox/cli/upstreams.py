"""`farebox upstream list` and `farebox upstream check`."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Annotated, Any

import msgspec
import typer
from msgspec.structs import asdict

from farebox import clock
from farebox.cli.session import AsJson, DatabaseUrl, clear_errors, fail, moment, print_json, print_table
from farebox.core.declared import Declared, format_name, names_of
from farebox.core.formats.table import FORMATS
from farebox.core.health import Standing
from farebox.core.reading import UNREADABLE
from farebox.core.traits import Traits
from farebox.core.upstream import ALL_MODELS, Listing
from farebox.core.usage import Cost
from farebox.deadlines import Deadlines
from farebox.from_settings import SIMULATOR_URL_VARIABLE, declared_upstreams, upstream_of
from farebox.ports import BooksUnavailable, Upstream, UpstreamBroke, UpstreamUnreachable
from farebox.settings import Settings, load
from farebox.simulator.server import embedded
from farebox.store.engine import COMMAND_SECONDS
from farebox.store.prepare import HEAD, UnusableBooks, open_store, schema_of

upstream_app = typer.Typer(no_args_is_help=True, help="The upstreams that are declared.", rich_markup_mode=None)

PROMPT = "Say ok."

ANSWER_TOKENS = 64
"""The cap of an answer that is asked for: a reasoning model thinks within it, too."""

LONG_PROMPT = "Write the numbers from 1 to 200 in words, one in a line."
"""Asks for an answer that is longer than the cap."""

SHOWN_MAX = 60
"""How much of an answer is shown."""

_HEADS = ("NAME", "KIND", "URL", "FORMATS", "MODELS", "PRICES", "AT ONCE", "AT HANG-UP", "KEY", "STATE")


@upstream_app.command("list")
def list_upstreams(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List the upstreams by their order: what is declared of each, and which are left alone now because they fail."""
    with clear_errors(), _settings(database_url) as settings:
        standings, now_us = _standings(settings.database_url), clock.now_us()
        every = sorted(declared_upstreams(settings), key=lambda each: each.order)
        rows = [_row(each, standings, now_us) for each in every]
        if as_json:
            print_json({"upstreams": rows})
            return
        for row in rows:
            row["formats"] = " ".join(row["formats"])
            row["models"] = None if row["models"] is None else " ".join(row["models"])
            row |= {"at_once": row["orders_max"] or "no bound", "state": _state(row["left_alone"])}
        names = ("name", "kind", "base_url", "formats", "models", "prices", "at_once", "at_hang_up", "key", "state")
        print_table(_HEADS, rows, names, missing="all it lists")


def _row(declared: Declared, standings: Sequence[Standing] | None, now_us: int) -> dict[str, Any]:
    key = "none" if declared.key_variable is None else declared.key_variable
    is_missing = declared.key_variable is not None and not os.environ.get(declared.key_variable)
    return {
        "name": declared.name,
        "kind": declared.kind,
        "base_url": declared.base_url,
        "formats": names_of(declared.formats),
        "models": None if declared.models is None else list(declared.models),
        "names": dict(declared.names),
        "prices": declared.prices,
        "at_hang_up": declared.at_hang_up,
        "capped_by": declared.capped_by,
        "orders_max": declared.orders_max,
        "order": declared.order,
        "weight": declared.weight,
        **_told_traits(declared.traits),
        "per_model": {model: _told_traits(traits) for model, traits in declared.per_model},
        "key": f"{key} (not set)" if is_missing else key,
        "left_alone": None
        if standings is None
        else [
            {"model": each.model or None, "until": moment(each.until_us), "reason": each.reason}
            for each in standings
            if each.upstream == declared.name and each.is_left_alone(now_us)
        ],
    }


def _told_traits(traits: Traits) -> dict[str, Any]:
    """What is declared of models; what is not has no member."""
    said = {name: value for name, value in asdict(traits).items() if value is not None}
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in said.items()}


def _state(left_alone: list[dict[str, Any]] | None) -> str:
    if left_alone is None:
        return "not known"
    parts = [f"{each['model'] or 'all'} until {each['until']}: {each['reason']}" for each in left_alone]
    return f"left alone: {'; '.join(parts)}" if parts else "well"


def _standings(database_url: str) -> Sequence[Standing] | None:
    """How upstreams stand, as the processes that serve have written it; None where there are no books of this version
    yet, or they do not answer."""

    async def read() -> Sequence[Standing]:
        async with open_store(database_url, COMMAND_SECONDS) as store:
            return await store.standings()

    try:
        return asyncio.run(read()) if schema_of(database_url) == HEAD else None
    except (UnusableBooks, BooksUnavailable):
        return None


@upstream_app.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of an upstream, as it is declared.")],
    model: Annotated[
        str | None, typer.Option(help="The model to ask, by our name for it.", show_default="the first that it serves")
    ] = None,
    embedding_model: Annotated[
        str | None,
        typer.Option(help="The one to ask for embeddings.", show_default="the first with `embed` in its name"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an upstream for its models, and for one short answer in each format that it speaks, which it may charge for;
    for one more of `openai`, to see whether it reads the answer's cap; say what came. Ends with code 1 where anything
    failed."""
    with clear_errors(), _settings() as settings:
        every = {each.name: each for each in declared_upstreams(settings)}
        if name not in every:
            fail(f"there is no upstream `{name}`, only {', '.join(every)}", 2)
        rows = asyncio.run(_check(every[name], settings, model, embedding_model))
    if as_json:
        print_json({"upstream": name, "checks": rows})
    else:
        print_table(("ASKED FOR", "CAME", "SECONDS", "MODEL", "PROMPT", "ANSWER", "COST", "WHAT"), rows, _COLUMNS)
    if not all(row["is_well"] for row in rows):
        raise typer.Exit(1)


_COLUMNS = ("asked_for", "came", "seconds", "model", "prompt_tokens", "answer_tokens", "cost_usd", "said")


@contextmanager
def _settings(database_url: str | None = None) -> Iterator[Settings]:
    """The settings; where the built-in simulator is the upstream, it runs for as long as the block does."""
    settings = load(database_url=database_url)
    if not settings.is_simulated or SIMULATOR_URL_VARIABLE in os.environ:
        yield settings
        return
    with embedded() as url:
        os.environ[SIMULATOR_URL_VARIABLE] = url
        try:
            yield settings
        finally:
            del os.environ[SIMULATOR_URL_VARIABLE]


async def _check(
    declared: Declared, settings: Settings, model: str | None, embedding_model: str | None
) -> list[dict[str, object]]:
    upstream = upstream_of(declared, settings, Deadlines())
    try:
        listed, row = await _models(upstream)
        rows = [row]
        embedders = [each for each in listed if "embed" in each]
        for path in ORDERS:
            if declared.speaks(path):
                is_embedding = path == "/embeddings"
                models = embedders if is_embedding else [each for each in listed if each not in embedders]
                asked = (embedding_model if is_embedding else model) or next(iter(models), None)
                rows.append(await _ask(upstream, path, asked))
                if path == "/chat/completions" and declared.kind == "openai" and rows[-1]["came"] == "200":
                    rows.append(await _ask_for_more(upstream, path, asked))
        return rows
    finally:
        await upstream.close()


async def _models(upstream: Upstream) -> tuple[list[str], dict[str, object]]:
    """The models that an upstream lists, by our names, and what to say of that."""
    began = monotonic()
    try:
        answer = await upstream.page(ALL_MODELS)
    except (UpstreamUnreachable, UpstreamBroke) as error:
        return [], _told("models", began, said=str(error))
    if not isinstance(answer, Listing):
        return [], _told("models", began, said=str(answer))
    ids = [str(msgspec.json.decode(entry)["id"]) for entry in answer.entries]
    unmatched = upstream.declared.unmatched(ids)
    said = f"{len(ids)} models: {_shortened(', '.join(ids))}"
    if unmatched:
        said = f"nothing matches {', '.join(unmatched)}; {said}"
    return ids, _told("models", began, came="a list", is_well=not unmatched, said=said)


async def _ask_for_more(upstream: Upstream, path: str, model: str | None) -> dict[str, object]:
    """Ask for a longer answer than its cap, under the name that OpenAI's clients give it, and see whether that
    holds."""
    long = {"messages": [{"role": "user", "content": LONG_PROMPT}], "max_completion_tokens": ANSWER_TOKENS}
    row = {**await _ask(upstream, path, model, long), "asked_for": "answer cap"}
    tokens = row["answer_tokens"]
    if not row["is_well"]:
        return {**row, "said": f"{row['said']}; {_TRY_OTHER % 'max_tokens'}"}
    if not isinstance(tokens, int):
        return {**row, "said": "it tells no usage, so whether the cap holds is not known"}
    if tokens > ANSWER_TOKENS:
        said = f"{tokens} tokens came, and at most {ANSWER_TOKENS} were asked for by `max_completion_tokens`"
        return {**row, "is_well": False, "said": f"{said}; {_TRY_OTHER % 'max_tokens'}"}
    return row


_TRY_OTHER = 'try capped_by = "%s" for it'


async def _ask(
    upstream: Upstream, path: str, model: str | None, order: Mapping[str, object] | None = None
) -> dict[str, object]:
    word, began = format_name(path), monotonic()
    if model is None:
        option = "--embedding-model" if path == "/embeddings" else "--model"
        return _told(
            word, began, came="not asked", is_well=True, said=f"no model is known for that; name one: {option}"
        )
    sent = json.dumps({**(order or ORDERS[path]), "model": model}).encode()
    try:
        reply = await upstream.forward(path, sent, {}, streamed=False)
        try:
            body = await reply.read()
        finally:
            reply.close()
    except (UpstreamUnreachable, UpstreamBroke) as error:
        return _told(word, began, said=str(error), model=model)
    if reply.status >= 400:
        said = _shortened(text := body.decode("utf-8", "replace"))
        if "'max_completion_tokens' instead" in text:
            said = f"{said}; {_TRY_OTHER % 'max_completion_tokens'}"
        return _told(word, began, came=str(reply.status), said=said, model=model)
    seen = FORMATS[path].see_answer(body)
    cost = f"{seen.cost.amount:f}" if isinstance(seen.cost, Cost) else None
    return _told(
        word,
        began,
        came=str(reply.status),
        is_well=seen.failure is None,
        said=seen.failure.message if seen.failure else _shortened(_text(body)),
        model=seen.model or model,
        generation_id=seen.generation_id or reply.generation_id,
        prompt_tokens=seen.prompt_tokens,
        answer_tokens=seen.answer_tokens,
        cost_usd=cost,
    )


ORDERS: Mapping[str, Mapping[str, object]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": ANSWER_TOKENS},
    "/messages": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": ANSWER_TOKENS},
    "/responses": {"input": PROMPT, "max_output_tokens": ANSWER_TOKENS},
    "/embeddings": {"input": PROMPT},
}
"""The order that is placed in each format."""


def _told(asked_for: str, began: float, **more: object) -> dict[str, object]:
    nothing: dict[str, object] = dict.fromkeys((*_COLUMNS, "generation_id"))
    seconds = f"{monotonic() - began:.3f}"
    return {**nothing, "came": "nothing", "is_well": False, **more, "asked_for": asked_for, "seconds": seconds}


def _text(body: bytes) -> str:
    """What an answer says, in whatever format; its beginning, where that is not found."""
    try:
        answer: Any = msgspec.json.decode(body.strip())
    except UNREADABLE:
        return body.decode("utf-8", "replace")
    texts = list(_texts(answer))
    return " ".join(texts) if texts else "an answer without text"


def _texts(answer: Any) -> Iterator[str]:
    for choice in answer.get("choices") or []:
        yield str((choice.get("message") or {}).get("content") or "")
    for block in answer.get("content") or []:
        yield str(block.get("text") or "")
    for item in answer.get("output") or []:
        yield from (str(part.get("text") or "") for part in item.get("content") or [])
    for vector in answer.get("data") or []:
        yield f"a vector of {len(vector['embedding'])}" if isinstance(vector.get("embedding"), list) else "a vector"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_MAX else f"{line[: SHOWN_MAX - 1]}…"
