"""`farebox prices ...`: the price file, before it counts."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from farebox import clock
from farebox.cli.session import AsJson, clear_errors, fail, moment, print_json, print_table
from farebox.core.price_files import BadPrices
from farebox.core.tariffs import Entry, KeptTariffs, Tariffs, as_text, prices_by_name
from farebox.core.usage import KINDS
from farebox.from_settings import openrouters_lists
from farebox.price_lists import PriceLists
from farebox.settings import load

prices_app = typer.Typer(help="Prices of upstreams that tell usage and no cost.", no_args_is_help=True)

MILLION = 1_000_000


@prices_app.callback()
def _prices() -> None:
    """So that `check` has a name, although it is the only one."""


class _NoShelf:
    """Nothing is kept of a list that is only looked at."""

    async def keep_tariffs(self, kept: KeptTariffs) -> None:
        """Not kept."""


@prices_app.command("check")
def check(
    file: Annotated[str | None, typer.Argument(help="The price file; that of the settings where absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a price file as a server would, and show what is in force for each model and what will be; exit 1 where a
    model has no price, 2 where the file is wrong."""
    with clear_errors():
        settings = load()
        name = file or settings.prices_file
        if name is None:
            fail("FILE: name the price file, or set FAREBOX_PRICES_FILE", 2)
        lists = PriceLists(Path(name), _NoShelf(), openrouters_lists(settings))
        try:
            asyncio.run(lists.refresh())
        except BadPrices as error:
            fail(str(error), 2)
        _show(lists.current, as_json=as_json)


def _show(tariffs: Tariffs, *, as_json: bool) -> None:
    now_us = clock.now_us()
    rows = [_row(tariffs, entry, now_us) for entry in tariffs.entries]
    if as_json:
        print_json({"version": tariffs.version, "prices": rows})
    elif not rows:
        typer.echo("The file has no prices.")
    else:
        kinds = [kind for kind in (*KINDS, "request") if any(row["usd"].get(kind, "0") != "0" for row in rows)]
        heads = (
            "UPSTREAM",
            "MODEL",
            "TERMS",
            "PROMPTS OVER",
            "FROM",
            "STANDS",
            *(k.upper().replace("_", " ") for k in kinds),
        )
        print_table(heads, [_cells(row, kinds) for row in rows])
        typer.echo("\nUSD for a million tokens; of `search` and `request`, for one. Version " + tariffs.version)
    if any(row["reason"] for row in rows):
        raise typer.Exit(1)


def _row(tariffs: Tariffs, entry: Entry, now_us: int) -> dict[str, Any]:
    """An entry, its prices as exact text in USD for one."""
    found = tariffs.find(entry.upstream, entry.model, now_us)
    is_in_force = found is not None and entry in found.entries
    stands = "in force" if is_in_force else "to come" if entry.since_us > now_us else "over"
    return {
        "upstream": entry.upstream,
        "model": entry.model,
        "terms": entry.terms,
        "above_prompt_tokens": entry.above_prompt_tokens,
        "from": moment(entry.since_us) if entry.since_us else None,
        "stands": stands,
        "free": entry.is_free,
        "usd": {name: as_text(price) for name, price in prices_by_name(entry.prices).items()}
        if not entry.reason
        else {},
        "reason": entry.reason or None,
    }


def _cells(row: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
    usd = row["usd"]
    shown = {kind: _shown(kind, usd[kind]) if kind in usd else "-" for kind in kinds}
    stands = (
        f"no price: {row['reason']}" if row["reason"] else f"{row['stands']}, free" if row["free"] else row["stands"]
    )
    head = {name: row[name] or "" for name in ("upstream", "model", "terms", "above_prompt_tokens", "from")}
    return {**head, "stands": stands, **shown}


def _shown(kind: str, usd: str) -> str:
    return usd if kind in ("search", "request") else as_text(Decimal(usd) * MILLION)
