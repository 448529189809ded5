"""What the console's pages are made of: the same use cases that commands and the API have."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from farebox.accounts import Accounts
from farebox.alerts import Alerts
from farebox.bookkeeping import Bookkeeping
from farebox.catalog import Catalog
from farebox.console.reading import SqlConsole
from farebox.console.requests import Viewer
from farebox.console.sessions import Sessions
from farebox.core.plans import Plan
from farebox.end_users import EndUsers
from farebox.http.bodies import BodyReader
from farebox.ports import Books, Ledger, Upstreams
from farebox.telemetry.counts import Counts
from farebox.troubles import Troubles
from farebox.web.relay import Relay
from farebox.whole_orders import WholeOrders


@dataclass(frozen=True, slots=True)
class Seller:
    """Who stands on invoices, as far as it is set."""

    name: str | None = None
    address: str | None = None
    tax: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """`plans` are those in force; `counts` is what this machine has counted. Once the process `is_stopping`, nobody
    watches it any more."""

    accounts: Accounts
    end_users: EndUsers
    books: Books
    ledger: Ledger
    reading: SqlConsole
    sessions: Sessions
    catalog: Catalog
    upstreams: Upstreams
    plans: Mapping[str, Plan]
    alerts: Alerts
    troubles: Troubles
    bodies: BodyReader
    bookkeeping: Bookkeeping
    seller: Seller
    public_url: str | None
    relay: Relay
    whole_orders: WholeOrders
    counts: Callable[[], Awaitable[Counts]]
    is_stopping: Callable[[], bool]

    def shows_cost(self, viewer: Viewer) -> bool:
        """Whether who looks is told what the upstream charged: as the account's plan has it, and operators always."""
        return viewer.account is None or self.accounts.shows_cost(viewer.account)
