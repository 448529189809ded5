"""`farebox config`: the settings in force, and where each is from. No secret is shown."""

import os
import re
from typing import Annotated, Any

import typer
from msgspec import structs, to_builtins

from farebox.cli.session import AsCsv, AsJson, DatabaseUrl, clear_errors, print_rows
from farebox.core.written import Secret, Table
from farebox.settings import OPENROUTER_KEY_VARIABLE, PREFIX, Settings, config_file, in_file, load
from farebox.store.prepare import shown

_USER = re.compile(r"(?<=://)[^/@\s]*@")
"""Who asks, in a URL."""

SET, NOT_SET = "(set)", "(not set)"

OWN_VARIABLES = (OPENROUTER_KEY_VARIABLE, "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE")
"""What counts beside the settings; the proxies' in lower case, too."""


def config(
    changed: Annotated[bool, typer.Option("--changed", help="Those alone that are not the default.")] = False,
    database_url: DatabaseUrl = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings in force, and where each is from: the command line, the environment, farebox.toml, or the
    default. Keys and passwords are not shown."""
    with clear_errors():
        settings = load(database_url=database_url)
    said = in_file()
    rows = [
        {
            "setting": name,
            "value": _shown(name, getattr(settings, name)),
            "from": _source(name, said, database_url),
        }
        for name in Settings.__struct_fields__
        if name not in _TABLES
    ]
    for table in _TABLES:
        for name, declared in getattr(settings, table).items():
            rows.append({"setting": f"{table}.{name}", "value": _table(declared), "from": str(config_file())})
    rows += [
        {"setting": name, "value": value, "from": "environment"}
        for name, value in _variables(settings)
        if value != NOT_SET or name == OPENROUTER_KEY_VARIABLE
    ]
    if changed:
        rows = [row for row in rows if row["from"] != "default" and row["value"] != NOT_SET]
    print_rows(("SETTING", "VALUE", "FROM"), rows, missing="-", as_json=as_json, as_csv=as_csv)


_TABLES = ("guards", "plans", "upstreams")


def _source(name: str, said_in_file: dict[str, Any], database_url: str | None) -> str:
    if name == "database_url" and database_url is not None:
        return "command line"
    variable = f"{PREFIX}{name.upper()}"
    given = next((each for each in os.environ if each.upper() == variable and os.environ[each]), None)
    if given is not None:
        return given
    return str(config_file()) if name in said_in_file else "default"


def _shown(name: str, value: Any) -> str | None:
    match value:
        case None:
            return None
        case Secret():
            return SET
        case list():
            return ", ".join(map(str, value))
        case bool():
            return str(value).lower()
        case str() if name == "database_url":
            return shown(value)
        case _:
            return _USER.sub("***@", str(value))


def _table(declared: Table) -> str:
    """What is said in it beside the defaults; the settings of guards, which may have secrets in them, by their names
    alone."""
    parts = []
    for member in structs.fields(declared):
        value = getattr(declared, member.name)
        if value in (member.default, {}):
            continue
        said = ", ".join(value) if isinstance(value, dict) and member.name == "settings" else to_builtins(value)
        parts.append(f"{member.name}={_USER.sub('***@', str(said))}")
    return "; ".join(parts)


def _variables(settings: Settings) -> list[tuple[str, str]]:
    """The variables that are named by no setting's own name: of keys whether they are set, of proxies where they
    are."""
    keys = [each.key_variable for each in settings.upstreams.values() if each.key_variable]
    found = []
    for name in dict.fromkeys((*OWN_VARIABLES, *keys)):
        value = os.environ.get(name) or (os.environ.get(name.lower()) if name.endswith("_PROXY") else None)
        if not value:
            found.append((name, NOT_SET))
        elif name in ("NO_PROXY", "SSL_CERT_FILE"):
            found.append((name, value))
        elif name.endswith("_PROXY"):
            found.append((name, _USER.sub("***@", value if "://" in value else f"http://{value}")))
        else:
            found.append((name, SET))
    return found
