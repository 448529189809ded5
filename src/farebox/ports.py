"""Everything Farebox needs from the world, on one page."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from farebox.core.allowances import Allowance, Limits
from farebox.core.books import (
    LAST_US,
    Activity,
    Balance,
    ChargedFare,
    Command,
    HoldRow,
    HoldState,
    KeptAnswer,
    NotEnded,
    Outcome,
    Settle,
    Transfer,
)
from farebox.core.callers import Account, Caller, Key, ManagementKey, PublishedPlans, User
from farebox.core.charges import Carried, Charge
from farebox.core.headers import HeaderList, RequestHead
from farebox.core.passage import Passage
from farebox.core.pricing import KeptPrices, PriceList
from farebox.core.runs import ANY_RUN, BilledEvents, ItemOutcome, LogLine, Record, Run, RunStatus, Which
from farebox.core.upstream import ListAnswer, ListQuery, RecordAnswer


class NameTaken(Exception):  # noqa: N818 - the word of the house
    """An account of this name exists."""


class BooksUnavailable(Exception):  # noqa: N818
    """The store cannot be read or written now, or does not answer in time; nothing of what was asked is in the books,
    unless it `is_in_doubt`."""

    def __init__(self, message: str, *, is_in_doubt: bool = False) -> None:
        super().__init__(message)
        self.is_in_doubt = is_in_doubt


class Ledger(Protocol):
    """The money side of the store."""

    async def carry_out(self, command: Command) -> Outcome:
        """Carry out one command. It is durable when this returns, and is not undone by cancelling the wait.

        Raises:
            BooksUnavailable: it was not carried out, or not in time: then that is in doubt.
        """

    async def balance(self, account_id: int) -> Balance: ...

    async def claim_questions(self, now_us: int, until_us: int, most: int) -> list[HoldRow]:
        """Open holds whose cost is to be asked for now, the longest due first. They are the caller's until `until_us`:
        no process gets them before."""

    async def kept_answer(self, hold_id: str) -> KeptAnswer | None:
        """The answer to an order that was placed under an idempotency key, if it was kept."""

    async def forget_answers(self, before_us: int) -> None:
        """Drop idempotency keys, and answers kept under them, of orders placed before a moment."""

    async def open_orphans(self) -> list[HoldRow]:
        """Turn pending holds whose process has gone into open ones, and give those that were found."""


class Spool(Protocol):
    """Settlements on this machine's disk, while the books cannot take them."""

    async def add(self, settle: Settle) -> None:
        """Keep one."""

    def clear(self) -> None:
        """All that was kept is in the books."""

    def left_behind(self) -> list[tuple[str, list[Settle]]]:
        """What processes kept that have gone, by the names under which it is to be removed."""

    def remove(self, name: str) -> None:
        """What was left behind under a name is in the books."""


class Directory(Protocol):
    """The people side of the store: accounts and keys."""

    async def create_account(self, name: str, plan: str, limit_nanos: int | None, created_us: int) -> Account:
        """Raises NameTaken. `limit_nanos` as in Balance."""

    async def accounts(self) -> list[Account]: ...

    async def find_account(self, name: str) -> Account | None: ...

    async def create_key(self, account_id: int, label: str, digest: bytes, hint: str, created_us: int) -> Key: ...

    async def keys(self, account_id: int) -> list[Key]: ...

    async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
        """The key and its account, revoked or not."""

    async def change_key(self, key: Key) -> None:
        """Write a key's label, and whether and until when it is good."""

    async def allowance(self, owner: str) -> Allowance | None:
        """An account's or a key's limits, and what counts against them; None where it has none."""

    async def set_limits(self, account_id: int, key_id: int | None, limits: Limits, now_us: int) -> None:
        """Set the limits of an account, or of one of its keys; they hold for every process from here on. What was
        spent before them counts, too."""

    async def create_management_key(
        self, label: str, digest: bytes, hint: str, account_id: int | None, created_us: int
    ) -> ManagementKey: ...

    async def management_keys(self) -> list[ManagementKey]: ...

    async def find_management_key(self, digest: bytes) -> ManagementKey | None:
        """Revoked or not."""

    async def revoke_management_key(self, key_id: int, revoked_us: int) -> None: ...

    async def published_plans(self) -> PublishedPlans | None: ...

    async def publish_plans(self, published: PublishedPlans) -> None: ...

    async def revision(self) -> int:
        """A number that changes whenever an account, a key, their limits or the plans do, in any process."""

    async def wait_for_change(self, seconds: float) -> None:
        """Return as soon as it may have changed, where the store is told; otherwise after so long."""


class PriceShelf(Protocol):
    """Where the processes of all nodes find an upstream's price list, so that one of them asks for it at a time. Each
    method raises BooksUnavailable."""

    async def kept_prices(self, source: str, after_us: int) -> KeptPrices | None:
        """The list, where it is newer than that."""

    async def claim_prices(self, source: str, now_us: int, until_us: int) -> bool:
        """Whether this process is to ask: no other does before `until_us`, unless prices are kept meanwhile."""

    async def keep_prices(self, source: str, kept: KeptPrices) -> None: ...


class Books(Protocol):
    """The reading side of the store, for statements and audits. Each is one consistent snapshot."""

    async def answer(self) -> None:
        """Return where orders can be booked. Raises BooksUnavailable, within a second or so."""

    async def transfers(self, account_id: int, since_us: int = 0, until_us: int = LAST_US) -> list[Transfer]:
        """An account's transfers from one moment to before another, oldest first."""

    async def orders(self, account_id: int, since_us: int, until_us: int) -> list[HoldRow]:
        """The holds that these transfers are of."""

    async def hold(self, hold_id: str) -> HoldRow | None: ...

    async def holds(self, states: tuple[HoldState, ...]) -> list[HoldRow]:
        """The holds in these states, oldest first."""

    async def not_ended(self) -> NotEnded:
        """Counted without going through those that have."""

    async def untold_since_us(self) -> int | None:
        """When the oldest fare was posted that an outside biller is still to be told of; None where there is none."""

    async def generation(self, account_id: int, generation_id: str) -> tuple[HoldRow, Transfer | None] | None:
        """An account's own order that became a generation, and the post that ended it, if one has."""

    async def usage_nanos(self, account_id: int, key_id: int | None, since_us: int) -> int:
        """The fares posted since a moment, for an account or one key of it."""

    async def usage_by_key(self, account_id: int, since_us: int) -> dict[int, tuple[int, int]]:
        """The same for every key of an account that has any, and when the latest was posted."""

    async def activity(
        self, account_id: int | None, key_id: int | None, since_us: int, until_us: int
    ) -> list[Activity]:
        """The fares posted between two moments by day and model, the latest day first; of one account or of all."""

    def snapshot(self) -> AbstractContextManager["Snapshot"]:
        """All rows at one moment. Blocks: not for the event loop of a server."""


class Snapshot(Protocol):
    """All rows at one moment."""

    def transfers(self) -> Iterator[Transfer]: ...

    def holds(self) -> Iterator[HoldRow]: ...

    def balances(self) -> Iterator[Balance]: ...

    def charged_fares(self) -> Iterator[ChargedFare]: ...

    def charges(self) -> Iterator[Charge]: ...

    def allowances(self) -> Iterator[Allowance]: ...


class TooLong(Exception):  # noqa: N818 - the word of the house
    """More was asked for at once than is held in memory; the message says how much that is."""


class Runs(Protocol):
    """Runs, and what they leave behind. Each method raises BooksUnavailable."""

    async def create_run(self, run: Run) -> None: ...

    async def run(self, account_id: int, run_id: str) -> Run | None:
        """An account's own run, by its id or that of its dataset, key-value store or request queue."""

    async def runs(
        self, account_id: int, offset: int, limit: int, *, desc: bool, which: Which = ANY_RUN
    ) -> tuple[list[Run], int]:
        """A page of those of an account's runs by their start, and how many there are."""

    async def change_run(
        self, run_id: str, status: RunStatus, message: str, finished_us: int | None = None, exit_code: int | None = None
    ) -> bool:
        """False where the run has finished already: then nothing is changed."""

    async def tell_run(self, run_id: str, message: str) -> None:
        """Say how far a run is, whatever its status."""

    async def take_up_runs(self) -> list[Run]:
        """The unfinished runs of processes that have gone; they are this process's now."""

    async def note_bill(self, bill: BilledEvents, since_us: int) -> str:
        """Write down that a run is billed, and return the id of the hold for it: that of the run's earlier bill under
        the same idempotency key, if one was noted since `since_us`."""

    async def billed_events(self, run_id: str) -> dict[str, int]:
        """How many of each priced event a run was billed for, by the event's name."""

    async def append(self, dataset_id: str, bodies: list[bytes]) -> None:
        """Put items behind those that there are."""

    async def push(self, dataset_id: str, number: int, body: bytes) -> None:
        """Put an item in its place in a dataset; the second time it stays as it is."""

    async def items(self, dataset_id: str, offset: int, limit: int, *, desc: bool) -> tuple[list[bytes], int]:
        """A page of a dataset, and how many items it has. Raises TooLong."""

    async def item_count(self, dataset_id: str) -> int: ...

    async def outcomes(self, dataset_id: str) -> list[ItemOutcome]:
        """What became of each order that has its item, however long its answer was."""

    async def put_record(self, store_id: str, record: Record) -> None: ...

    async def record(self, store_id: str, key: str) -> Record | None: ...

    async def records(self, store_id: str) -> list[Record]:
        """All, by their keys."""

    async def add_line(self, run_id: str, created_us: int, text: str) -> None: ...

    async def lines(self, run_id: str, after: int) -> list[LogLine]:
        """The lines of a log that come after one (0: all), a thousand at most."""

    async def forget_runs(self, before_us: int) -> None:
        """Drop runs that finished before a moment, and what they left."""

    async def key_of_id(self, key_id: int) -> tuple[Account, Key] | None:
        """The key and its account, revoked or not."""


class Outbox(Protocol):
    """Fares that an outside biller is to be told, and the charges they become. Each method raises BooksUnavailable."""

    async def gather(self, now_us: int) -> list[Charge]:
        """Make charges of the fares that are part of none, and give all that are due: one for each fare that is charged
        by its request, one at a time for those of the run together."""

    async def change(self, charge: Charge) -> None:
        """Write down how a charge that was due stands."""

    async def counted(self) -> int:
        """The events of all charges that have ended, as far as the biller has counted them."""

    async def unfinished(self) -> Carried:
        """What another machine must know to go on."""

    async def adopt(self, carried: Carried) -> None:
        """Take over charges whose orders are in the books by now."""


class NotCounted(Exception):  # noqa: N818
    """The biller refused a charge, and will each time; the message says why."""


class BillerUnreachable(Exception):  # noqa: N818
    """Whether the biller heard a charge is not known: it may be repeated under the same key."""


class Biller(Protocol):
    """Who bills callers for us: the Apify platform."""

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        """Charge `count` events, once however often it is called under one idempotency key. `charge_to` is the id of
        the request whose caller pays; empty where the run's user does. Raises NotCounted, BillerUnreachable."""

    async def counted(self) -> int:
        """The events of this run that were counted so far. Raises BillerUnreachable, NotCounted."""


class ApifyUnreachable(Exception):  # noqa: N818
    """The platform did not answer, or not what was asked."""


class Users(Protocol):
    """Whose tokens they are."""

    async def user_of(self, token: str) -> User | None:
        """None where the token is nobody's, or has expired. Raises ApifyUnreachable."""


class Callers(Protocol):
    """Who is calling."""

    async def identify(self, head: RequestHead) -> Caller:
        """Whoever one of the credentials that came belongs to: clients send a dummy beside it.

        Raises:
            Refusal: 401, nobody; 403, somebody who may not order here; 429, that cannot be told now.
            BooksUnavailable: nobody can be looked up.
        """


class CallerGone(Exception):  # noqa: N818
    """The caller hung up: nobody waits for the answer any more."""


class Waiting(Protocol):
    """A caller who waits for an order's answer, and is told how far it is."""

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        """The order goes to the upstream now; `headers` are ours, whatever becomes of it. Raises CallerGone."""

    def head_came(self, headers: Callable[[], HeaderList]) -> None:
        """The upstream has taken up the order, and its answer is still to come. `headers` gives those of its head."""

    def pass_on(self, lines: bytes) -> None:
        """Blank lines or comments with which the upstream asks for patience."""

    def answer_came(self) -> bytes:
        """The wait is over. Gives those lines that have not gone on, to stand before the answer."""


class Telemetry(Protocol):
    """Who watches."""

    def began_stream(self) -> None:
        """A stream goes on to its caller."""

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None:
        """A request for an order is over, however it ended."""


class Reply(Protocol):
    """An upstream's answer, its head read."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> HeaderList:
        """Those that the caller may see, names in lower case."""

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""

    @property
    def generation_id(self) -> str | None:
        """From the head, where it stands there."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole body is here already, so that `read` does not wait."""

    async def chunk(self) -> bytes:
        """The next bytes as they come; b"" at the end. Raises UpstreamBroke."""

    async def read(self) -> bytes:
        """All that is left of the body. Raises UpstreamBroke."""

    def close(self) -> None:
        """Break off: a `chunk` that waits raises UpstreamBroke. Harmless when all was read."""


class UpstreamUnreachable(Exception):  # noqa: N818
    """No connection was made: the upstream has not heard of the order."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class UpstreamBroke(Exception):  # noqa: N818
    """It broke off, or fell silent, after it may have accepted the order; `generation_id` where its head said that."""

    def __init__(self, message: str, generation_id: str | None = None) -> None:
        super().__init__(message)
        self.generation_id = generation_id


class Upstream(Protocol):
    """Where orders are served, in our words: each kind of upstream knows its own paths, statuses and documents. What is
    awaited raises UpstreamUnreachable or UpstreamBroke."""

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> Reply:
        """Send an order; `path` is the one of its format (a key of FORMATS)."""

    async def prices(self) -> tuple[bytes, ...]:
        """The documents that its prices stand in, as `read_prices` reads them, here or in another process."""

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        """Raises ValueError: they hold no price list."""

    async def page(self, query: ListQuery) -> ListAnswer:
        """One of its lists."""

    async def record(self, generation_id: str) -> RecordAnswer:
        """What it has written down of an order that it served, and above all what that cost."""

    async def close(self) -> None:
        """Let go of what it holds open; nothing is asked afterwards."""
