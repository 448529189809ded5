"""What a manager does over HTTP: keys and activity in OpenRouter's shapes, accounts and top-ups in Farebox's own.

Each is a use case of `farebox.accounts`, as the commands are. Shapes of the first: OpenRouter's OpenAPI document
(`/keys`, `/keys/{hash}`, `/activity`); an account is a workspace there.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import msgspec
from msgspec import Raw
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.accounts import Accounts, BadTerms, NotFound, OtherTopUpBefore, Spending
from farebox.acting import acting
from farebox.core.allowances import AMOUNTS, NO_LIMITS, Limits, date_of, day_of, limits_by_name, usage_by_name
from farebox.core.books import Activity, Balance
from farebox.core.caching import SECONDS_MAX
from farebox.core.callers import Account, Key, ManagementKey
from farebox.core.errors import Refusal, conflict, forbidden, invalid, unknown
from farebox.core.formats.table import BASES
from farebox.core.headers import HeaderList, RequestHead, read_request_head
from farebox.core.money import format_usd
from farebox.core.reading import read_whole
from farebox.core.trail import By
from farebox.http.asgi import JSON, AsgiBody, Endpoint, send_whole
from farebox.http.bodies import BodyReader
from farebox.http.queries import query_values, query_whole
from farebox.identity.keys import Managers
from farebox.ports import NameTaken
from farebox.web.account import RESETS, iso_or_null, or_null, tightest, usage, usd
from farebox.web.alerts import AlertPages
from farebox.web.bills import BillPages, Whose, WhoseBooks
from farebox.web.changes import Changes
from farebox.web.end_users import EndUserPages
from farebox.web.members import Fields, day_of_date

PAGE = 100
"""How many keys OpenRouter lists at once."""

BODY_BYTES_MAX = 64 * 1024
ACTIVITY_DAYS = 30
"""How many whole UTC days OpenRouter shows."""

_ANOTHER = "This management key is for another account"

_WORKSPACE = 0xFAEB0_000_0000_8000_8000 << 48
"""The head of a version 8 UUID, whose other bits are free: the last 48 are the account's number."""


@dataclass(frozen=True, slots=True)
class Request:
    """A manager's request, its credential checked. `path` and `query` are by name, `fields` are the body's members."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    head: RequestHead
    manager: ManagementKey
    fields: Fields


Answer = tuple[int, object, HeaderList] | tuple[int, object]
Do = Callable[[Request], Awaitable[Answer]]
Served = tuple[str, list[str], Endpoint]
"""A path, its methods, and its endpoint."""


class Management:
    """The endpoints for managers."""

    def __init__(
        self,
        managers: Managers,
        accounts: Accounts,
        bodies: BodyReader,
        bills: BillPages,
        changes: Changes,
        end_users: EndUserPages,
        alerts: AlertPages,
    ) -> None:
        self._end_users = end_users
        self._alerts = alerts
        self._bills = bills
        self._managers = managers
        self._accounts = accounts
        self._changes = changes
        self._bodies = bodies.shorter(BODY_BYTES_MAX)

    def routes(self) -> list[Served]:
        """Keys and activity under each base, as OpenRouter has them; accounts and top-ups below the root."""
        openrouters = {
            "/keys": self._serve(GET=self._list_keys, POST=self._create_key),
            "/keys/{hash}": self._serve(GET=self._read_key, PATCH=self._update_key, DELETE=self._delete_key),
            "/keys/{hash}/rotate": self._serve(POST=self._rotate_key),
            "/activity": self._serve(GET=self._activity),
        }
        ledger = self._bills.ledger(self._whose_books)
        of_one = self._bills.routes(self._whose, with_trail=True)
        of_all = self._bills.routes(self._whose, with_statement=False, with_trail=True)
        return [
            *((base + path, *served) for path, served in openrouters.items() for base in BASES),
            ("/admin/accounts", *self._serve(GET=self._list_accounts, POST=self._create_account)),
            ("/admin/accounts/{account}", *self._serve(GET=self._read_account, PATCH=self._change_account)),
            ("/admin/accounts/{account}/close", *self._serve(POST=self._close_account)),
            ("/admin/accounts/{account}/reopen", *self._serve(POST=self._reopen_account)),
            (
                "/admin/accounts/{account}/end-users",
                *self._serve(GET=self._list_end_users, PATCH=self._limit_end_users),
            ),
            ("/admin/top-ups", *self._serve(POST=self._top_up)),
            ("/admin/corrections", *self._serve(POST=self._correct)),
            ("/admin/keys/import", *self._serve(POST=self._changes.import_keys)),
            ("/admin/alerts", *self._serve(GET=self._alerts.list_all, POST=self._alerts.add)),
            ("/admin/alerts/{alert}", *self._serve(GET=self._alerts.read, DELETE=self._alerts.remove)),
            ("/admin/alerts/{alert}/test", *self._serve(POST=self._alerts.test)),
            ("/admin/alerts/{alert}/deliveries", *self._serve(GET=self._alerts.deliveries)),
            *((f"/admin/accounts/{{account}}{path}", ["GET"], page) for path, page in of_one.items()),
            *((f"/admin{path}", ["GET"], page) for path, page in of_all.items()),
            *((f"/admin{path}/statement{{ledger:ledger}}", ["GET"], ledger) for path in ("", "/accounts/{account}")),
        ]

    async def _whose(self, scope: Scope) -> Whose:
        """Whose bills a manager asks for: those of the account that the path names, else of its own, or of all.
        One of a single account is told what its plan shows."""
        manager = await self._managers.identify(read_request_head(scope["headers"]))
        try:
            if (named := scope["path_params"].get("account")) is not None:
                account: Account | None = await self._account_named(manager, named)
            else:
                own = manager.account_id
                account = None if own is None else await self._accounts.find_by_id(own)
        except NotFound as error:
            raise unknown(str(error)) from error
        if manager.account_id is None or account is None:
            return Whose(account, is_for_one=False)
        return Whose(account, self._accounts.shows_cost(account))

    async def _whose_books(self, scope: Scope) -> WhoseBooks:
        """Who manages all accounts keeps the operator's books, who manages one the books of that."""
        whose = await self._whose(scope)
        manager = await self._managers.identify(read_request_head(scope["headers"]))
        accounts = await self._accounts.every() if whose.account is None else [whose.account]
        return WhoseBooks(accounts, "operator" if manager.account_id is None else "caller", whose.shows_cost)

    def _serve(self, **methods: Do) -> tuple[list[str], Endpoint]:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            do = methods["GET" if scope["method"] == "HEAD" else scope["method"]]
            head = read_request_head(scope["headers"])
            manager = await self._managers.identify(head)
            fields = Fields()
            if scope["method"] in ("POST", "PATCH"):
                fields = Fields.of(await self._bodies.read_json(AsgiBody(scope, receive), head))
                manager = await self._managers.identify(head)  # the body may have been long in coming
            request = Request(scope["path_params"], query_values(scope), head, manager, fields)
            try:
                with acting(By("api", manager.label, manager_id=manager.id)):
                    status, answer, *headers = await do(request)
            except NotFound as error:
                raise unknown(str(error)) from error
            except (BadTerms, NameTaken) as error:
                what = f"name: there is an account `{error}` already" if isinstance(error, NameTaken) else str(error)
                raise invalid(what) from error
            except OtherTopUpBefore as error:
                raise conflict(f"idempotency-key: {error}") from error
            await send_whole(send, status, [JSON, *(headers[0] if headers else [])], msgspec.json.encode(answer))

        return list(methods), endpoint

    # Keys, as OpenRouter has them

    async def _list_keys(self, request: Request) -> Answer:
        account = await self._account(request, request.query.get("workspace_id"))
        with_disabled = request.query.get("include_disabled", "false").lower() == "true"
        offset = query_whole(request.query, "offset", 0)
        found = [
            (owner, key)
            for owner, key in await self._accounts.keys(None if account is None else account.name)
            if key.revoked_us is None or (key.disabled and with_disabled)
        ][offset : offset + PAGE]
        spent: dict[int, Spending] = {}
        for owner in {owner.id: owner for owner, _ in found}.values():
            spent |= await self._accounts.spending_by_key(owner)
        return 200, {"data": [await self._key(key, spent.get(key.id, Spending())) for _, key in found]}

    async def _create_key(self, request: Request) -> Answer:
        account = await self._account(request, request.fields.text("workspace_id"))
        if account is None:
            try:
                account = await self._accounts.default()
            except NotFound as error:
                raise invalid(f"workspace_id: say whose key it is; {error} (GET /admin/accounts lists them)") from error
        name = request.fields.text("name")
        if not name:
            raise invalid("name: give the key a name")
        key, _, row = await self._accounts.create_key(
            account.name,
            name,
            request.fields.moment("expires_at"),
            _cache_seconds(request.fields),
            may_store=request.fields.flag("farebox_may_store") is not False,
            limits=_money(request.fields, NO_LIMITS) | request.fields.limits(),
        )
        return 201, {"data": await self._key(row, Spending()), "key": key}

    async def _read_key(self, request: Request) -> Answer:
        account, key = await self._find(request, request.path["hash"])
        return 200, {"data": await self._key(key, await self._spent(account, key))}

    async def _update_key(self, request: Request) -> Answer:
        account, key = await self._find(request, request.path["hash"])
        given = request.fields.limits()
        _, key = await self._accounts.change_key(
            key.digest.hex(),
            label=request.fields.text("name"),
            disabled=request.fields.flag("disabled"),
            cache_seconds=_cache_seconds(request.fields),
            may_store=request.fields.flag("farebox_may_store"),
            limits=lambda before: _money(request.fields, before) | given,
        )
        return 200, {"data": await self._key(key, await self._spent(account, key))}

    async def _rotate_key(self, request: Request) -> Answer:
        account, key = await self._find(request, request.path["hash"])
        secret, now = await self._changes.rotate(request, key.digest.hex())
        _, key = await self._accounts.find_key(now)
        return 201, {"data": await self._key(key, await self._spent(account, key)), "key": secret}

    async def _delete_key(self, request: Request) -> Answer:
        _, key = await self._find(request, request.path["hash"])
        await self._accounts.revoke_key(key.digest.hex())
        return 200, {"deleted": True}

    async def _find(self, request: Request, named: str) -> tuple[Account, Key]:
        """The key with the hash `named`. Raises Refusal 404."""
        missing = unknown(f"there is no key with the hash `{named[:64]}`; GET /api/v1/keys lists them")
        if len(named) != 64:
            raise missing
        try:
            account, key = await self._accounts.find_key(named)
        except NotFound as error:
            raise missing from error
        is_another = request.manager.account_id not in (None, account.id)
        if is_another or key.digest.hex() != named.lower() or (key.revoked_us is not None and not key.disabled):
            raise missing
        return account, key

    async def _account(self, request: Request, workspace: str | None) -> Account | None:
        """The account that a request is about; None where it is about all. Raises Refusal 400, 403; NotFound."""
        own = request.manager.account_id
        account_id = _account_id(workspace) if workspace is not None else own
        if own not in (None, account_id):
            raise forbidden(_ANOTHER)
        return None if account_id is None else await self._accounts.find_by_id(account_id)

    async def _spent(self, account: Account, key: Key) -> Spending:
        return (await self._accounts.spending_by_key(account)).get(key.id, Spending())

    async def _key(self, key: Key, spent: Spending) -> dict[str, object]:
        allowance = await self._accounts.allowance(key)
        limit, remaining, reset = tightest(allowance)
        return {
            "hash": key.digest.hex(),
            "name": key.label or key.hint,
            "label": key.hint,
            "disabled": key.disabled,
            "limit": or_null(limit),
            "limit_remaining": or_null(remaining),
            "limit_reset": reset,
            "include_byok_in_limit": True,
            **usage(spent),
            "created_at": iso_or_null(key.created_us),
            "updated_at": iso_or_null(key.updated_us),
            "expires_at": iso_or_null(key.expires_us),
            "last_used_at": iso_or_null(spent.latest_us),
            **dict.fromkeys(("creator_user_id", "external_user")),
            "workspace_id": workspace_of(key.account_id),
            "farebox_cache_seconds": key.cache_seconds,
            "farebox_may_store": key.may_store,
            "farebox_limits": _numbers(_limits(key.limits)),
        }

    async def _activity(self, request: Request) -> Answer:
        account = await self._account(request, request.query.get("workspace_id"))
        key: Key | None = None
        if (named := request.query.get("api_key_hash")) is not None:
            owner, key = await self._find(request, named)
            account = account or owner
        today = day_of(clock.now_us())
        first, last = today - ACTIVITY_DAYS, today - 1
        if (asked := request.query.get("date")) is not None:
            first = last = day_of_date(asked)
            if not today - ACTIVITY_DAYS <= first <= today:
                raise invalid(f"date: one of the last {ACTIVITY_DAYS} days, or today, not {asked}")
        if request.query.get("user_id"):
            return 200, {"data": []}
        rows = await self._accounts.activity(account, key, first, last)
        return 200, {"data": [_activity_item(row) for row in rows]}

    # Accounts, as Farebox has them

    async def _list_accounts(self, request: Request) -> Answer:
        _check_operator(request.manager)
        return 200, {"data": [_described_account(*each) for each in await self._accounts.accounts()]}

    async def _create_account(self, request: Request) -> Answer:
        _check_operator(request.manager)
        request.fields.check_names("name", "plan", "postpaid", "prepaid_usd", "limit_usd", "limits")
        name, plan = request.fields.text("name"), request.fields.text("plan")
        if name is None or plan is None:
            raise invalid("name, plan: give both; a plan is paying, free, or one of the operator's own")
        is_postpaid = request.fields.flag("postpaid") or False
        paid_in, limit = request.fields.amount("prepaid_usd"), request.fields.amount("limit_usd")
        if is_postpaid and paid_in is not None:
            raise invalid("prepaid_usd, postpaid: they exclude each other")
        if limit is not None and not is_postpaid:
            raise invalid("limit_usd: goes with `postpaid`; a prepaid account's limit is what was paid in")
        given = request.fields.limits("limits")
        account = await self._accounts.create(name, plan, limit if is_postpaid else 0, paid_in or 0, given)
        return 201, {"data": _described_account(account, await self._accounts.balance(account))}

    async def _read_account(self, request: Request) -> Answer:
        account = await self._named(request)
        allowance = await self._accounts.allowance(account)
        spent = await self._accounts.spending(account)
        described_account = _described_account(account, await self._accounts.balance(account))
        described_account["low_balance_usd"] = format_usd(await self._alerts.low_balance(account.id))
        return 200, {
            "data": {**described_account, "used": usage_by_name(allowance, clock.now_us()), **_in_text(usage(spent))}
        }

    async def _change_account(self, request: Request) -> Answer:
        account = await self._named(request)
        _check_operator(request.manager)
        request.fields.check_names("limits", "plan", "name", "low_balance_usd")
        low_nanos = request.fields.amount("low_balance_usd")
        given = request.fields.limits("limits")
        plan, name = request.fields.text("plan"), request.fields.text("name")
        account = await self._accounts.change(account.name, plan=plan, new_name=name, limits=given)
        # Last: what is refused was refused by now.
        if "low_balance_usd" in request.fields:
            await self._alerts.set_low_balance(account.id, low_nanos)
        return 200, {"data": _described_account(account, await self._accounts.balance(account))}

    async def _close_account(self, request: Request) -> Answer:
        _check_operator(request.manager)
        account = await self._named(request)
        paid_out = await self._changes.close(request, account.name)
        account = await self._accounts.find_by_id(account.id)
        described = _described_account(account, await self._accounts.balance(account))
        return 200, {"data": {**described, "paid_out_usd": paid_out}}

    async def _reopen_account(self, request: Request) -> Answer:
        _check_operator(request.manager)
        request.fields.check_names()
        account = await self._accounts.reopen((await self._named(request)).name)
        return 200, {"data": _described_account(account, await self._accounts.balance(account))}

    async def _list_end_users(self, request: Request) -> Answer:
        return await self._end_users.list(request, await self._named(request))

    async def _limit_end_users(self, request: Request) -> Answer:
        return await self._end_users.change(request, await self._named(request))

    async def _correct(self, request: Request) -> Answer:
        _check_operator(request.manager)
        return await self._changes.correct(request)

    async def _named(self, request: Request) -> Account:
        """The account that the path names, by its name or its id. Raises Refusal 403; NotFound."""
        return await self._account_named(request.manager, request.path["account"])

    async def _account_named(self, manager: ManagementKey, named: str) -> Account:
        """Raises Refusal 403; NotFound."""
        try:
            account = await self._accounts.find_by_id(_account_id(named))
        except (Refusal, NotFound):
            try:
                account = await self._accounts.find(named)
            except NotFound as error:
                if manager.account_id is None:
                    raise
                # Which other accounts there are is not told.
                raise forbidden(_ANOTHER) from error
        if manager.account_id not in (None, account.id):
            raise forbidden(_ANOTHER)
        return account

    async def _top_up(self, request: Request) -> Answer:
        _check_operator(request.manager)
        request.fields.check_names("account", "amount_usd", "note")
        key = request.head.idempotency_key.decode("latin-1")
        if not key:
            raise invalid(
                "idempotency-key: give the top-up a name of your own, such as an invoice's: it is booked once under it"
            )
        name, amount = request.fields.text("account"), request.fields.amount("amount_usd")
        if name is None or amount is None:
            raise invalid("account, amount_usd: give both")
        paid_in = await self._accounts.top_up(name, amount, key, request.fields.text("note"))
        answer = {"data": {**_described_account(paid_in.account, paid_in.balance), "amount_usd": format_usd(amount)}}
        return (200, answer, [(b"idempotency-replayed", b"true")]) if paid_in.is_repeat else (201, answer)


def workspace_of(account_id: int) -> str:
    """An account's id in the form of OpenRouter's workspaces, a UUID."""
    return str(UUID(int=_WORKSPACE | account_id))


def _account_id(workspace: str) -> int:
    """The account's number in its id. Raises Refusal 400."""
    try:
        number = UUID(workspace).int
    except ValueError:
        number = 0
    if number >> 48 != _WORKSPACE >> 48:
        raise invalid("workspace_id: an account's id, as GET /admin/accounts lists it")
    return number & ((1 << 48) - 1)


def _described_account(account: Account, balance: Balance) -> dict[str, object]:
    return {
        "id": workspace_of(account.id),
        "name": account.name,
        "plan": account.plan,
        "terms": "prepaid" if balance.limit_nanos == 0 else "postpaid",
        "limit_usd": None if balance.limit_nanos is None else format_usd(balance.limit_nanos),
        "balance_usd": format_usd(balance.balance_nanos),
        "held_usd": format_usd(balance.pending_nanos),
        "available_usd": None if balance.available_nanos is None else format_usd(balance.available_nanos),
        "created_at": iso_or_null(account.created_us),
        "closed_at": iso_or_null(account.closed_us),
        "limits": _limits(account.limits),
    }


def _activity_item(row: Activity) -> dict[str, object]:
    """OpenRouter's members of a line of activity. Some are empty: the books do not know which provider served an order,
    nor which of its tokens were reasoning or cached."""
    return {
        "date": date_of(row.day),
        "model": row.model,
        "model_permaslug": row.served_model,
        **dict.fromkeys(("endpoint_id", "provider_name"), ""),
        "usage": usd(row.fares_nanos),
        "requests": row.requests,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.answer_tokens,
        **dict.fromkeys(("byok_usage_inference", "reasoning_tokens", "cached_tokens"), 0),
    }


def _limits(limits: Limits) -> dict[str, object]:
    return {name: value for name, value in limits_by_name(limits).items() if value is not None}


def _in_text(amounts: Mapping[str, object]) -> dict[str, object]:
    """Amounts of OpenRouter's members as Farebox has them in its own: exact text."""
    return {name: bytes(value).decode() if isinstance(value, Raw) else str(value) for name, value in amounts.items()}


def _numbers(values: Mapping[str, object]) -> dict[str, object]:
    """The same values with amounts, which are exact text, as numbers in JSON."""
    return {name: Raw(str(value).encode()) if name in AMOUNTS else value for name, value in values.items()}


def _cache_seconds(fields: Fields) -> int | None:
    """For how long answers to a key's orders are kept, 0 where null says: no more; None where nothing is said. Raises
    Refusal 400."""
    name = "farebox_cache_seconds"
    if name not in fields:
        return None
    seconds = read_whole(fields.number(name) or "0", 0, SECONDS_MAX)
    if seconds is None:
        raise invalid(f"{name}: write a whole number of seconds, from 0 (not at all) to {SECONDS_MAX}")
    return seconds


def _money(fields: Fields, before: Limits) -> dict[str, str | list[str] | None]:
    """The limits that OpenRouter's `limit` and `limit_reset` set. They replace the key's limit of money, or the one of
    the longest period where it has several; the others stay. Raises Refusal 400."""
    if "limit" not in fields and "limit_reset" not in fields:
        return {}
    names = dict(zip(RESETS.values(), AMOUNTS, strict=True))
    replaced, limit = names[None], None
    for period, most in before.money.items():
        replaced, limit = names[RESETS[period]], format_usd(most)
    name = replaced
    if "limit_reset" in fields:
        reset = fields.text("limit_reset")
        if reset not in names:
            raise invalid(f"limit_reset: daily, weekly, monthly or null, not {reset!r}")
        name = names[reset]
    if "limit" in fields:
        limit = fields.number("limit")
    return {replaced: None, name: limit}


def _check_operator(manager: ManagementKey) -> None:
    if manager.account_id is not None:
        raise forbidden("This management key is for the keys of one account")
