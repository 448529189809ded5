"""`farebox doctor`: what is wrong here, and what to do about it."""

from typing import Annotated

import typer
from msgspec.structs import asdict

from farebox.cli.examinations import Finding, every, versions
from farebox.cli.session import AsJson, DatabaseUrl, print_json, styled
from farebox.settings import BadSettings, load

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


def doctor(
    database_url: DatabaseUrl = None,
    is_quiet: Annotated[bool, typer.Option("--quiet", help="Show what is not well, and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at versions, settings, books, disks, limits, the port, the upstreams and the clock, and say what to do about
    what is not well. Nothing is ordered, nothing is made. Ends with code 1 where anything is wrong."""
    found = list(versions())
    try:
        found += every(load(database_url=database_url))
    except BadSettings as error:
        found.append(Finding("settings", "wrong", str(error), "mend it; the rest was not looked at"))
    if as_json:
        print_json({"is_well": all(each.state != "wrong" for each in found), "findings": [asdict(f) for f in found]})
    else:
        for each in found:
            if not is_quiet or each.state != "ok":
                _show(each)
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(1)


def _show(found: Finding) -> None:
    typer.echo(f"{styled(f'{found.state:<8}', COLOURS[found.state])} {found.what}: {found.said}")
    if found.advice is not None:
        typer.echo(f"         -> {found.advice}")
