"""What a page is asked, and what it answers."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from msgspec import Struct

from farebox.console.reading import SignedIn
from farebox.core.callers import Account
from farebox.core.errors import forbidden, invalid, unknown
from farebox.core.money import parse_usd
from farebox.core.reading import read_whole
from farebox.core.trail import By
from farebox.http.asgi import Endpoint
from farebox.web.members import day_of_date

WHOLE_MAX = 2**53

ROWS_AT_ONCE = 1_000
"""Rows of a list that goes into a file."""

Cell = str | int | None


class Viewer(Struct, frozen=True):
    """Who looks: by a key of an account, which shows what is that account's; by a management key of one account, who
    may change its keys as well; or by one of all accounts, who may do all there is to do but order. `key_id` is the
    account's key, `manager_id` the management key."""

    name: str
    account: Account | None
    key_id: int | None
    manager_id: int | None
    key_label: str

    def by(self, session: str) -> By:
        """Who makes the changes that are asked for in a session, by its secret."""
        told_apart = sha256(f"changes {session}".encode("utf-8", "replace")).hexdigest()[:12]
        return By("console", self.key_label, self.manager_id, self.key_id, told_apart)

    @property
    def is_manager(self) -> bool:
        return self.manager_id is not None

    @property
    def account_id(self) -> int | None:
        """Whose things may be seen; None: everybody's."""
        return None if self.account is None else self.account.id

    @property
    def is_operator(self) -> bool:
        return self.is_manager and self.account is None

    def check_manages(self) -> None:
        """Raises Refusal 403."""
        if not self.is_manager:
            raise forbidden("Only a management key changes anything here: sign in with one")

    def check_operates(self) -> None:
        """Raises Refusal 403."""
        if not self.is_operator:
            raise forbidden("Only a management key of all accounts may do this")

    def check_sees(self, account_id: int, what: str) -> None:
        """Raises Refusal 404, as if it were not there: what is another account's."""
        if self.account_id not in (None, account_id):
            raise unknown(what)


def viewer_of(found: SignedIn) -> Viewer:
    name = found.key_label or found.key_hint
    return Viewer(name, found.account, found.key_id, found.manager_id, found.key_label)


@dataclass(frozen=True, slots=True)
class Request:
    """What a page is asked. `path` has the parts that the path names, `session` is the session's secret, `address` the
    gateway's own as this browser knows it; a list that is asked for as CSV or JSON `is_download`, and has more rows at
    once."""

    viewer: Viewer
    session: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    now_us: int
    address: str
    is_download: bool = False

    def text(self, name: str) -> str:
        """What a form has in a field, without spaces around it; empty where it has nothing."""
        return self.form.get(name, self.query.get(name, "")).strip()

    def rows(self, shown: int) -> int:
        """How many rows a list has at once."""
        return ROWS_AT_ONCE if self.is_download else shown

    def day(self, name: str) -> int | None:
        """A UTC day since 1970, None where none is given. Raises Refusal 400."""
        sent = self.text(name)
        return day_of_date(sent, name) if sent else None

    def whole(self, name: str, default: int = 0, most: int = WHOLE_MAX) -> int:
        """A whole number, up to `most`. Raises Refusal 400."""
        sent = self.text(name)
        number = read_whole(sent, 0, most) if sent else default
        if number is None:
            raise invalid(f"{name}: a whole number up to {most}, not {sent[:40]!r}")
        return number

    def amount(self, name: str) -> int:
        """An amount in nano-dollars. Raises Refusal 400."""
        try:
            return parse_usd(self.text(name))
        except ValueError as error:
            raise invalid(f"{name}: {error}") from error

    def number_in_path(self, name: str, what: str) -> int:
        """A row's number. Raises Refusal 404."""
        number = read_whole(self.path[name], 0, WHOLE_MAX)
        if number is None:
            raise unknown(what)
        return number


@dataclass(frozen=True, slots=True)
class Page:
    """A page, made of a template and values. One with a list has its `rows`, each with the members of `columns`, which
    are given as JSON or CSV at the same address with `.json` or `.csv`; `next_query` is where the list goes on."""

    template: str
    values: Mapping[str, object] = field(default_factory=dict)
    status: int = 200
    columns: tuple[str, ...] = ()
    rows: Sequence[Mapping[str, Cell]] = ()
    next_query: Mapping[str, str | int] | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Look there now: at a path of the console's own."""

    path: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file of this name, as it is read."""

    name: str
    content_type: bytes
    pieces: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Relayed:
    """What an order's own endpoint answers, in the place of a page: `serve` takes the request's body for read."""

    serve: Endpoint


Answer = Page | Redirect | Download | Relayed
