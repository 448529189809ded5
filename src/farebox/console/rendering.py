"""Pages from templates, and the two files that go with them.

Everything that a template is given is escaped; nothing stands in a page's attributes or scripts that a page has not
written there itself. The headers let a browser load nothing that is not the console's own, and run no script that
stands in a page."""

import csv
import io
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from farebox.bills import harmless
from farebox.console import shown
from farebox.console.entrance import PATH
from farebox.console.requests import Page
from farebox.core.headers import HeaderList

_HERE = Path(__file__).parent

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

SAFETY: HeaderList = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not `no-referrer`: with it a browser says `Origin: null` of the console's own forms, too.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
UNKEPT: HeaderList = [(b"cache-control", b"no-store"), (b"vary", b"cookie")]

_FILES = {
    "console.css": b"text/css; charset=utf-8",
    "console.js": b"text/javascript; charset=utf-8",
    "playground.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}


@cache
def file_of(name: str) -> tuple[bytes, bytes] | None:
    """One of the console's files, and its type; None where there is none."""
    kind = _FILES.get(name)
    return None if kind is None else ((_HERE / "static" / name).read_bytes(), kind)


@cache
def address_of(name: str) -> str:
    """Where a file is found: another address when it changes, so that browsers may keep it."""
    found = file_of(name)
    assert found is not None, name
    return f"{PATH}/static/{name}?{sha256(found[0]).hexdigest()[:16]}"


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {"address_of": address_of, "at": PATH}
    made.filters |= {
        "money": shown.money,
        "usd": shown.usd,
        "exact": shown.exact,
        "count": shown.count,
        "moment": shown.moment,
        "day": shown.day,
        "lasted": shown.lasted,
        "about": shown.about,
        "clock": shown.time_of_day,
    }
    return made


def html(page: Page, **around: object) -> bytes:
    return _templates().get_template(page.template).render(**around, **page.values).encode()


def fragment(template: str, values: Mapping[str, object]) -> str:
    """A part of a page."""
    return _templates().get_template(template).render(**values)


def as_json(page: Page, now: str, next_address: str | None) -> bytes:
    """A page's list as JSON; amounts are text, exact."""
    body = {"as_of": now, "data": [dict(row) for row in page.rows], "next": next_address}
    return msgspec.json.encode(body)


def as_csv(page: Page) -> bytes:
    """A page's list as CSV (RFC 4180), with a line of heads."""
    text = io.StringIO()
    write = csv.writer(text)
    write.writerow(page.columns)
    for row in page.rows:
        write.writerow([harmless(row[name]) for name in page.columns])
    return text.getvalue().encode()


def query_text(query: Mapping[str, str | int]) -> str:
    return urlencode({name: value for name, value in query.items() if value not in ("", None)})
