"""Everything that Farebox needs from the world: Protocols, and the exceptions that they raise. What one room alone
keeps (`platform.store`, `actor.outbox`) has no port."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, runtime_checkable

from farebox.core.alerts import Changes, Delivery, Form, Low, Raised, Receiver, Used
from farebox.core.allowances import NO_LIMITS, Allowance, Limits
from farebox.core.audit import Snapshot
from farebox.core.bills import (
    BookedOrder,
    Days,
    EndUserSpent,
    Movement,
    Movements,
    OrderFilter,
    OrderPlace,
    TotalsFilter,
)
from farebox.core.books import (
    LAST_US,
    Activity,
    Attributed,
    Balance,
    Command,
    DayTotal,
    First,
    HoldRow,
    HoldState,
    KeptAnswer,
    KeyUse,
    NotEnded,
    Outcome,
    Seen,
    Settle,
    Sought,
    Transfer,
)
from farebox.core.caching import CachedRow
from farebox.core.callers import PLAIN_TERMS, Account, Caller, Key, KeyTerms, ManagementKey, PublishedPlans, User
from farebox.core.declared import Declared
from farebox.core.headers import HeaderList, RequestHead
from farebox.core.health import Standing
from farebox.core.likeness import Likeness
from farebox.core.passage import Passage
from farebox.core.presets import PresetVersion
from farebox.core.pricing import KeptPrices, PriceList
from farebox.core.routing import Candidate
from farebox.core.stored import StoredRow
from farebox.core.tariffs import KeptTariffs
from farebox.core.trail import Told, TrailFilter
from farebox.core.upstream import Filters, JobAnswer, ListAnswer, ListQuery, RecordAnswer


class NameTaken(Exception):  # noqa: N818 - the word of the house
    """An account of this name exists."""


class KeyTaken(Exception):  # noqa: N818
    """A key of this digest exists."""


class BooksUnavailable(Exception):  # noqa: N818
    """The books cannot be read or written now, or do not answer in time. Nothing was written, unless that
    `is_in_doubt`."""

    def __init__(self, message: str, *, is_in_doubt: bool = False) -> None:
        super().__init__(message)
        self.is_in_doubt = is_in_doubt


class TooManyPresets(Exception):  # noqa: N818
    """The account has as many as it may."""


class PresetInUse(Exception):  # noqa: N818
    """Another version of the preset is being written at the same moment."""


class Ledger(Protocol):
    """The money side of the store: balances, holds and their settlement."""

    def carry_out(self, command: Command) -> Awaitable[Outcome]:
        """Carry out one command. Its outcome is durable when this returns. Cancelling the wait does not undo it.

        Raises:
            BooksUnavailable: it was not carried out; or not in time, and then that is in doubt.
        """

    async def balance(self, account_id: int) -> Balance: ...

    async def claim_questions(self, now_us: int, until_us: int, most: int) -> list[HoldRow]:
        """Claim open holds whose cost is to be asked for now, at most `most`, those that are due longest first. No
        other process gets them before `until_us`."""

    async def kept_answer(self, hold_id: str) -> KeptAnswer | None:
        """The answer to an order that was placed under an idempotency key, if it was kept."""

    async def key_use(self, account_id: int, key_digest: bytes) -> KeyUse | None:
        """The order that stands under an account's idempotency key, of this digest."""

    async def forget_answers(self, before_us: int) -> None:
        """Drop idempotency keys, and answers kept under them, of orders placed before a moment."""

    async def find_first(self, sought: Sought) -> Seen:
        """The order that another repeats. Its answer is kept from now on, whoever else takes it."""

    async def first(self, hold_id: str) -> First:
        """How that order stands."""

    async def mark_lost(self, hold_id: str) -> None:
        """The caller of a pending order has gone."""

    async def give_undelivered(self, hold_id: str, now_us: int) -> None:
        """An answer that nobody was there to take has been given to a repeat of its order."""

    async def forget_undelivered(self, before_us: int) -> None:
        """Drop what was kept for repeats of orders placed before a moment."""

    async def open_orphans(self) -> list[HoldRow]:
        """Turn pending holds of processes that died into open ones, and return them."""


class Spool(Protocol):
    """Keeps settlements on this machine's disk while the books cannot take them."""

    async def add(self, settle: Settle) -> None:
        """Keep one; it is on disk when this returns."""

    def clear(self) -> None:
        """Drop all that this process kept: it is in the books."""

    def left_behind(self) -> list[tuple[str, list[Settle]]]:
        """What processes kept that have died, each with the name for `remove`."""

    def remove(self, name: str) -> None:
        """Drop what was left behind under a name: it is in the books."""


class Trail(Protocol):
    """Who changed what. Entries are written by what makes the changes: each method of `Directory` that changes
    something, of `PresetShelf`, and commands of operators, in the same transaction, as done by `acting.by()`. Each
    method raises BooksUnavailable."""

    async def entries(self, wanted: TrailFilter, before: int, most: int) -> list[Told]:
        """So many entries before one, by their numbers, the latest first."""


class Directory(Protocol):
    """The people side of the store: accounts, keys, their limits, and plans. What changes something is entered in the
    trail by the same transaction.

    What there is already is changed by a function from what it is to what it will be. It is given what stands in the
    books while nobody else can change it, so of two changes at once neither undoes the other. It does nothing else (it
    runs in the books' thread); where it raises something, nothing is changed, and that is raised.
    """

    async def create_account(
        self, name: str, plan: str, limit_nanos: int | None, created_us: int, limits: Limits = NO_LIMITS
    ) -> Account:
        """Raises NameTaken. `limit_nanos` as in Balance."""

    async def change_account(self, account_id: int, change: Callable[[Account], Account], now_us: int) -> Account:
        """Change an account's name and plan, whether it is closed, and its limits; the account as it is then. Limits
        hold for all processes at once, and what was spent before counts, too; it is counted again where `change` gives
        new ones that are the same. Raises NameTaken."""

    async def accounts(self) -> list[Account]: ...

    async def find_account(self, name: str) -> Account | None: ...

    async def create_key(
        self,
        account_id: int,
        label: str,
        digest: bytes,
        hint: str,
        created_us: int,
        terms: KeyTerms = PLAIN_TERMS,
        check: Callable[[Account], None] | None = None,
    ) -> Key:
        """`check` is given the account while nobody else can change it, and raises what speaks against the key. Raises
        KeyTaken: there is one of this digest."""

    async def keys(self, account_id: int) -> list[Key]: ...

    async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
        """The key that has this digest, or had it before it was rotated, and its account; revoked or not."""

    async def rotate_key(self, key_id: int, change: Callable[[Key], Key]) -> Key:
        """Change a key's digests and hint, and until when they are valid; the key as it is then."""

    async def has_foreign_keys(self) -> bool:
        """Whether any key may begin otherwise than Farebox's own."""

    async def change_key(self, key_id: int, change: Callable[[Key], Key], now_us: int) -> Key:
        """Change a key's label, whether and until when it is valid, what is kept of its answers, and its limits, as
        those of an account; the key as it is then."""

    async def allowance(self, owner: str) -> Allowance | None:
        """An account's or a key's limits, and what counts against them; None where it has none."""

    async def limit_end_user(
        self, account_id: int, end_user: str | None, change: Callable[[Limits], Limits], now_us: int
    ) -> Limits:
        """Change the limits of one of an account's end users, or (None) of each that has no limit of its own, as those
        of the account; the limits as they are then."""

    async def allowances_of(self, owners: Sequence[str]) -> list[Allowance]:
        """Those of these owners that there are."""

    async def limited_end_users(self, account_id: int, after: str, most: int) -> list[Allowance]:
        """The end users of an account that have limits of their own, by their owners' names: so many behind one."""

    async def end_users(self, account_id: int, first_day: int, after: str, most: int) -> list[EndUserSpent]:
        """The end users of an account with fares since a UTC day began, by their names: so many behind one."""

    async def end_user(self, account_id: int, first_day: int, end_user: str) -> EndUserSpent:
        """One of these; without fares, too."""

    async def secret(self, name: str) -> bytes:
        """32 random bytes that are the same for all processes, for ever. They are made when they are first asked
        for."""

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
        """A number that changes whenever any process changes an account, a key, limits or the plans."""

    async def wait_for_change(self, seconds: float) -> None:
        """Return when `revision` may have changed, if the store notices that, and after so many seconds at the
        latest."""


class PriceShelf(Protocol):
    """Shares an upstream's price list among the processes of all nodes, so that only one at a time asks for it. Each
    method raises BooksUnavailable."""

    async def kept_prices(self, source: str, after_us: int) -> KeptPrices | None:
        """The list, if it was read after that moment."""

    async def claim_prices(self, source: str, now_us: int, until_us: int) -> bool:
        """Whether this process is to ask; no other gets True before `until_us`, unless prices are kept meanwhile."""

    async def keep_prices(self, source: str, kept: KeptPrices) -> None: ...


class TariffShelf(Protocol):
    """Keeps every price list by which the usage of orders was charged."""

    async def keep_tariffs(self, kept: KeptTariffs) -> None:
        """Keep a list, if its version is not kept already; it is durable when this returns. Raises
        BooksUnavailable."""


class AnswerShelf(Protocol):
    """Keeps answers for the same orders again, for all nodes. Each method raises BooksUnavailable."""

    async def cached_answer(self, digest: bytes, now_us: int) -> CachedRow | None:
        """What is kept and still good."""

    async def keep_cached(self, row: CachedRow) -> None: ...

    async def sweep_cached(self, now_us: int, bytes_max: int) -> tuple[int, int]:
        """Drop what is no longer good and, where their bodies are larger together, the oldest. How many are left, and
        how large they are."""


class ResponseShelf(Protocol):
    """Keeps answers in Responses for their accounts. Those of orders that do not run in the background are kept with
    their settlement (`Settle.stored`). Each method raises BooksUnavailable."""

    @property
    def worker(self) -> str:
        """The name of this process in the books."""

    async def stored(self, account_id: int, response_id: str, now_us: int) -> StoredRow | None:
        """An account's answer, if its time is not over."""

    async def stored_chain(self, account_id: int, response_id: str, now_us: int, most: int) -> list[StoredRow]:
        """That answer and those that it continues, the latest first, without their events: as far as they are there,
        and at most one more than `most`."""

    async def keep_stored(self, row: StoredRow) -> None:
        """Keep an answer, in the place of one of its id."""

    async def begin_stored(self, row: StoredRow) -> bool:
        """Keep that an order runs in the background. Whether there was none of its id."""

    async def end_stored(self, row: StoredRow) -> bool:
        """Keep what an order in the background became. Whether it was still running: what has ended stays so."""

    async def go_on_stored(self, account_id: int, response_ids: Sequence[str], until_us: int) -> None:
        """Keep these answers until then, if not for longer."""

    async def delete_stored(self, account_id: int, response_id: str, now_us: int) -> bool:
        """Whether there was one."""

    async def measure_stored(self, account_id: int) -> int:
        """How many bytes are kept for an account."""

    async def sweep_stored(self, now_us: int) -> None:
        """Delete what has had its time."""

    async def stored_orphans(self) -> list[StoredRow]:
        """Orders in the background that have not ended, and whose process has died."""

    async def stored_running(self) -> list[tuple[int, str]]:
        """Those of this process that have not ended by what is kept: each account, and the answer's id."""


class PresetShelf(Protocol):
    """Keeps the presets of accounts. Each method raises BooksUnavailable."""

    async def save_preset(
        self, account_id: int, slug: str, system_prompt: str | None, config: str, now_us: int
    ) -> PresetVersion:
        """Write the first version of a preset, or the next one; beyond VERSIONS_MAX the oldest go.

        Raises:
            TooManyPresets: the account has PRESETS_MAX others.
            PresetInUse: another version is just being written.
        """

    async def preset(self, account_id: int, slug: str, version: int | None = None) -> PresetVersion | None:
        """One version, the latest where none is named."""

    async def presets(self, account_id: int) -> list[PresetVersion]:
        """The latest version of each, the one first that was written last."""

    async def preset_versions(self, account_id: int, slug: str) -> list[PresetVersion]:
        """All that are kept, the oldest first."""

    async def drop_preset(self, account_id: int, slug: str) -> bool:
        """Drop all versions. Whether there were any."""


class Standings(Protocol):
    """Shares among the processes of all nodes how upstreams stand. Each method raises BooksUnavailable."""

    async def standings(self) -> list[Standing]: ...

    async def put_standing(self, standing: Standing) -> None:
        """Write one, unless a later one is there."""

    async def forget_standings(self, before_us: int) -> None:
        """Drop those that have not changed since a moment."""


class AlertShelf(Protocol):
    """Keeps where alerts go, what is raised, and what is on its way. Each method raises BooksUnavailable."""

    async def add_receiver(
        self,
        label: str,
        url: str,
        form: Form,
        secret: str | None,
        kinds: Sequence[str],
        account_id: int | None,
        created_us: int,
    ) -> Receiver: ...

    async def receivers(self) -> list[Receiver]: ...

    async def drop_receiver(self, receiver_id: int) -> None:
        """And all that was, or is, on its way to it."""

    async def raised(self) -> dict[str, Raised]:
        """By name."""

    async def take_down(
        self, changes: Changes, deliveries: Sequence[tuple[str, Delivery]], now_us: int, keep_since_us: int
    ) -> int:
        """Write down what a look came to, and begin the deliveries of those troubles, each under its trouble's name,
        that no other process has told of meanwhile; and drop deliveries that ended and were begun before
        `keep_since_us`. All of it or nothing. How many deliveries began."""

    async def forget_all_raised(self) -> None: ...

    async def put_delivery(self, delivery: Delivery) -> None: ...

    async def claim_deliveries(self, now_us: int, until_us: int, most: int) -> list[Delivery]:
        """Those that are due, at most so many; no other process gets them before `until_us`."""

    async def change_delivery(self, delivery: Delivery) -> None:
        """Write what became of an attempt at a delivery that was due."""

    async def deliveries(
        self, receiver_id: int | None, account_id: int | None, most: int, before: str
    ) -> list[Delivery]:
        """The latest first, those behind the one of the id `before` (all where that is empty); to one receiver, to
        those of one account, or to all."""

    async def low_accounts(self, default_nanos: int, account_id: int | None) -> list[Low]:
        """Accounts that have less left than their own threshold, or the default one; of one account, or of all."""

    async def low_balance(self, account_id: int) -> int | None:
        """Below what an account is low by its own threshold; None where it has none."""

    async def set_low_balance(self, account_id: int, below_nanos: int | None) -> None: ...

    async def limits_used(self, now_us: int) -> list[tuple[Used, str, str | None]]:
        """The limits of money that are nearly used, or used up, with the names of their account and their key."""


class Webhooks(Protocol):
    """What sends to receivers of alerts."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        """Send a JSON body; None where the receiver took it, else why not, in words without the URL. Ends within
        seconds."""


class Books(Protocol):
    """The reading side of the store, for statements and audits. What can be long is read piece by piece, so that no
    reader holds the moment that it reads: what was posted meanwhile may be in a result or not."""

    async def answer(self) -> None:
        """Return if orders can be booked. Raises BooksUnavailable, within a second or so."""

    async def transfers(self, account_id: int, since_us: int = 0, until_us: int = LAST_US) -> list[Transfer]:
        """An account's transfers since one moment and before another, oldest first. Those that set money aside are
        told of orders that have not ended; of others, what ended them."""

    async def orders(self, hold_ids: Sequence[str]) -> list[HoldRow]:
        """The holds of these ids."""

    async def hold(self, hold_id: str) -> HoldRow | None: ...

    async def transfers_of(self, ids: Sequence[str]) -> list[Transfer]:
        """The transfers of these ids, by their ids."""

    async def holds(self, states: tuple[HoldState, ...]) -> list[HoldRow]:
        """The holds in these states, oldest first."""

    async def not_ended(self) -> NotEnded:
        """How many holds have not ended, counted without reading those that have."""

    async def untold_since_us(self) -> int | None:
        """When the oldest fare was posted that an outside biller has yet to be told; None where there is none."""

    async def generation(self, account_id: int, generation_id: str) -> tuple[HoldRow, Transfer | None] | None:
        """The hold of an account's generation, and the transfer that ended it, if one has. None: not this account's."""

    async def job(self, account_id: int, job_id: str) -> tuple[HoldRow, Transfer | None] | None:
        """The same of the order that began an account's job."""

    async def spent_nanos(self, account_id: int, key_id: int | None, first_day: int) -> int:
        """The fares posted since a UTC day began, for an account or one key of it."""

    async def spent_by_key(self, account_id: int, first_day: int) -> dict[int, tuple[int, int]]:
        """For every key of an account with fares since a UTC day began: their sum, and when the latest was posted."""

    async def given_back_nanos(self, account_id: int) -> int:
        """What corrections of fares gave back to an account, of all that was credited to it."""

    async def activity(
        self, account_id: int | None, key_id: int | None, first_day: int, last_day: int
    ) -> list[Activity]:
        """The fares posted from one UTC day to another, both included, by day and model, the latest day first; of one
        account or key, or all."""

    async def order_page(
        self, account_id: int | None, wanted: OrderFilter, after: OrderPlace, most: int
    ) -> tuple[list[BookedOrder], OrderPlace | None]:
        """So many orders behind a place, of one account or of all, and the place behind them; None: there are no more.
        Fewer than `most` where too many were looked at that are not wanted."""

    async def movements(self, account_id: int, since_us: int, until_us: int, after: Movement, most: int) -> Movements:
        """So many of an account's movements behind one, within a time, and what they all come to; all of one moment."""

    async def corrections(self, account_id: int, since_us: int, until_us: int) -> list[Transfer]:
        """The corrections of an account's fares within a time."""

    async def totals(self, account_id: int | None, wanted: TotalsFilter, most: int) -> list[DayTotal]:
        """The totals of days, grouped, the latest day first; of one account, or of all."""

    async def attributed_totals(self, account_id: int | None, wanted: TotalsFilter, most: int) -> list[Attributed]:
        """The same where it is asked for whom orders are. Where neither an end user nor a tag is asked for, the totals
        of all other orders, too, so that all are the sum of the days'. In the place of tags stands the value of the one
        that is grouped by."""

    async def days(self, account_id: int, wanted: TotalsFilter, most: int) -> Days:
        """What happened to an account on the days that are wanted, at most so many totals; all of one moment."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """All rows at one moment. Blocks, so it is not for a server's event loop."""


class NotCounted(Exception):  # noqa: N818
    """The biller refused a charge, and would again; the message says why."""


class BillerUnreachable(Exception):  # noqa: N818
    """Nobody knows whether the biller counted a charge: it may be repeated under the same key."""


class Biller(Protocol):
    """The outside biller, which charges callers for us: Apify's platform."""

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        """Charge `count` events; calls under one idempotency `key` count once. `charge_to` is the id of the request
        whose caller pays; empty where the run's user does. Raises NotCounted, BillerUnreachable."""

    async def counted(self) -> int:
        """How many events of this run were counted so far. Raises BillerUnreachable, NotCounted."""


class ApifyUnreachable(Exception):  # noqa: N818
    """Apify's API did not answer, or with an error."""


class Users(Protocol):
    """The users of Apify's platform."""

    async def user_of(self, token: str) -> User | None:
        """Whose token it is; None where it is nobody's, or has expired. Raises ApifyUnreachable."""


class Callers(Protocol):
    """Authentication."""

    async def identify(self, head: RequestHead) -> Caller:
        """The caller whom one of the request's credentials belongs to: some clients send a dummy in another header.

        Raises:
            Refusal: 401, they are nobody's; 403, their owner may not order here; 429, they cannot be checked now.
            BooksUnavailable: no key can be looked up now.
        """


class CallerGone(Exception):  # noqa: N818
    """The caller hung up: nobody waits for the answer any more."""


class Waiting(Protocol):
    """A caller who waits for an order's answer, and is kept informed."""

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        """The order is about to go to the upstream. `headers` are our own of its answer. Raises CallerGone."""

    def head_came(self, headers: Callable[[], HeaderList]) -> None:
        """The upstream accepted the order, its answer is still to come. `headers` returns those of the answer's
        head."""

    def pass_on(self, lines: bytes) -> None:
        """Send on the blank lines or comments by which the upstream keeps the connection alive."""

    def answer_came(self) -> bytes:
        """The wait is over. Returns the lines that were not sent on, to be put before the answer."""


class Taker(Protocol):
    """The connection that an answer goes to."""

    def has_gone(self) -> bool:
        """Whether the caller has closed it. Any thread may ask."""

    def may_have_gone(self) -> bool:
        """Whether the caller has closed its side of it, or all of it."""

    def tell_if_lost(self, tell: Callable[[], None], size: int = 0) -> None:
        """Call `tell` where the caller goes before its answer, of `size` bytes, is sent, or turns out not to have taken
        it; at once, where it has gone already. In the place of what was to be called before."""


class Telemetry(Protocol):
    """Metrics, logs and traces of orders."""

    def began_stream(self) -> None:
        """A stream begins to go to its caller."""

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None:
        """A request for an order is over, however it ended."""


Taken = Awaitable[None] | None
"""What to wait for before the next piece of a stream, where whoever reads it is slow. (Written out in a function within
another, it would be made anew for every order.)"""

Take = Callable[[bytes], Taken]
"""Takes a piece of a stream."""


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
        """From the head; None where it does not say."""

    @property
    def adds_usage(self) -> bool:
        """Whether a stream tells its usage in a chunk of its own that its caller did not ask for, and is not to get."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole body has come, so that `read` does not wait."""

    async def chunk(self) -> bytes:
        """The next bytes as they come; b"" at the end. Raises UpstreamBroke."""

    async def read(self) -> bytes:
        """All that is left of the body. Raises UpstreamBroke."""

    async def pour(self, take: Take, likeness: Likeness | None = None) -> None:
        """All that is left of the body, to `take`: each piece as it comes, if it can be in the very call that reads it
        from the connection. Of whole chunks, `likeness` may take those that it knows instead. Raises UpstreamBroke, and
        what `take` raises."""

    def close(self) -> None:
        """Let the connection go; who waits for more of the body gets UpstreamBroke. Does nothing after it was read."""


class UpstreamUnreachable(Exception):  # noqa: N818
    """No connection was made: the upstream has not heard of the order."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class UpstreamDenied(Exception):  # noqa: N818
    """The upstream refused the operator's own account there, so nothing was charged. The message is for logs: no
    caller's key is wrong."""


class UpstreamBroke(Exception):  # noqa: N818
    """The upstream broke off or fell silent after it may have accepted the order. `generation_id` is from its head, if
    that came."""

    def __init__(self, message: str, generation_id: str | None = None) -> None:
        super().__init__(message)
        self.generation_id = generation_id


class Upstream(Protocol):
    """Serves orders. Speaks Farebox's words: each kind of upstream translates them into its own paths, statuses and
    documents. Every method that is awaited raises UpstreamUnreachable or UpstreamBroke."""

    @property
    def declared(self) -> Declared:
        """Its name, what it serves and speaks, whether it tells costs and keeps records, and what else was declared."""

    def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> Awaitable[Reply]:
        """Send an order; `path` is that of its format, a key of FORMATS."""

    async def prices(self) -> tuple[bytes, ...]:
        """The documents that have its prices, for `read_prices`, which may be called in another process."""

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        """Read the price list from those documents. Raises ValueError: they have none."""

    async def page(self, query: ListQuery) -> ListAnswer:
        """One of its lists."""

    async def record(self, generation_id: str) -> RecordAnswer:
        """Its record of a generation, above all what that cost."""

    async def close(self) -> None:
        """Close its connections; nothing is called afterwards."""


class Media(Reply, Protocol):
    """Bytes that were asked for beside an order."""

    @property
    def about_bytes(self) -> HeaderList:
        """Headers that say what they are: type, length, and which part of the whole they are."""


@runtime_checkable
class Jobs(Protocol):
    """What an `Upstream` has, too, if orders begin jobs there. Raises as its other methods."""

    async def job(self, job_id: str) -> JobAnswer:
        """How a job stands."""

    async def content(self, job_id: str, query: Filters, headers: Mapping[str, str]) -> Media:
        """What a job made. `headers` are the caller's that say which part of it is wanted."""


class Engaged(Protocol):
    """An upstream that has an order. `is_drained`: a stream whose caller hung up is read to its end."""

    upstream: Upstream
    is_drained: bool

    def let_go(self) -> None:
        """The order has ended there."""


class Lists(Protocol):
    """The prices and lists of one upstream, or of several together; each method as in `Upstream`."""

    async def prices(self) -> tuple[bytes, ...]: ...

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList: ...

    async def page(self, query: ListQuery) -> ListAnswer: ...


class Upstreams(Lists, Protocol):
    """All upstreams that are declared."""

    def candidates(self, model: str) -> Sequence[Candidate]:
        """Those that serve a model, by our name."""

    def engage(self, name: str) -> Engaged:
        """An upstream by its name, for an order: it stays open until the order lets it go. Raises UpstreamUnreachable:
        it is not declared any more."""

    async def record(self, hold: HoldRow) -> RecordAnswer:
        """The record of an order's generation, of the upstream that had the order. Raises as `Upstream.record`."""

    async def job(self, hold: HoldRow) -> JobAnswer:
        """The job that an order began, of the upstream that had the order. Raises as `Jobs.job`."""

    def content(self, hold: HoldRow, query: Filters, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Media]:
        """What that job made, as `Jobs.content`; let go when the block is left. Entering raises UpstreamUnreachable,
        UpstreamBroke."""

    async def kept_content(self, hold: HoldRow) -> ListAnswer:
        """What the upstream that had an order keeps of its prompt and answer, as `data`. Raises as `Upstream.page`."""

    async def count_tokens(self, name: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """How many tokens the prompt of an order in Anthropic's format has, as an upstream counts them; None where it
        does not count, or refuses to. Raises as `Upstream.page`."""
