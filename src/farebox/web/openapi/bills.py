"""Orders, statements and totals: under each base for callers, below the root for managers."""

from farebox.bills import AT_ONCE, COUNTED, GROUP_COLUMNS, ORDER_COLUMNS, STATEMENT_COLUMNS
from farebox.bookkeeping import FORMS
from farebox.core.bills import GROUPS
from farebox.core.formats.table import KINDS
from farebox.core.schemas import FLAG, NAME, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.core.trail import WAYS
from farebox.trail import COLUMNS as TRAIL_COLUMNS
from farebox.web.bills import STATES
from farebox.web.openapi.operations import AT_ROOT, Node, answer, header, in_path, operation, parameter

_TIME = "Of UTC where it names no zone: 2026-11-28, 2026-11-28T14:30:00Z, or 2026-11 for that month's first moment."
_RANGE = [
    parameter("from", TEXT, f"From this moment on. {_TIME}"),
    parameter("to", TEXT, f"Until before this moment. {_TIME}"),
    parameter("month", TEXT, "A whole month, such as 2026-11, in place of both."),
    parameter("day", TEXT, "A whole UTC day, such as 2026-11-28, in place of both."),
]
_KEY = parameter("key", NAME, "Of one key: its hash, or its name where no other key has it.")
_MODEL = parameter("model", NAME, "Of one model: the one that was asked for, or that served.")
_KIND = parameter("kind", one_of(" ".join(sorted(set(KINDS.values())))), "Of one kind.")
_FOR_WHOM = [
    parameter("end_user", NAME, "For one end user: by its name, or as it is kept."),
    parameter("tag", NAME, "Under one tag, such as team=search."),
]
_FILTERS = [_KEY, _MODEL, _KIND, parameter("state", one_of(" ".join(STATES)), "In one state."), *_FOR_WHOM]
_PAGING = [
    parameter("limit", {"type": "integer", "minimum": 1, "maximum": AT_ONCE}, "Rows of a page, 100 if absent."),
    parameter("cursor", NAME, "What stands in `next` of the page before."),
]
_BY = parameter(
    "by", TEXT, f"With commas between them: {', '.join(GROUPS)}, end_user, a tag such as tag:team. `day` if absent."
)
_TRAIL = [
    parameter("who", TEXT, "By those whose name has this in it."),
    parameter("what", TEXT, "Of this kind, such as `key.revoked`, or of this thing, such as `key`."),
]
_ENDING = in_path("ending", "`.csv` or `.json`, whatever `Accept` says.", one_of(".csv .json"))
_LEDGER = in_path("ledger", "For beancount, hledger, or as FOCUS's table of charges.", one_of(" ".join(FORMS)))
_BOOKS_BY = parameter("by", one_of("day order"), "A line for each day, model and key (if absent), or for each order.")
_BOOKS = parameter("books", one_of("caller operator"), "Whose books they are for; if absent, whoever asks.")
_ACCOUNT = in_path("account", "Its name, or its id.")
_ORDER = in_path("id", "The order's, or of one account's orders the generation's.")

_ASKED_FOR = parameter("model", NAME, "That was asked for.")
_LISTS = {
    "/orders": ("Orders", [*_RANGE, *_FILTERS, *_PAGING]),
    "/totals": (
        "Totals of days",
        [*_RANGE, _BY, _KEY, _ASKED_FOR, _KIND, *_FOR_WHOM],
    ),
    "/statement": ("Statement", [*_RANGE, *_FOR_WHOM, *_PAGING]),
    "/trail": ("Trail of changes", [*_RANGE, _KEY, *_TRAIL, *_PAGING]),
}
_SCHEMAS = {"/orders": "OrderList", "/totals": "Totals", "/statement": "AccountStatement", "/trail": "TrailList"}
_WORDS = {403: "A caller's key, or the management key of another account.", 404: "There is none, or it is another's."}


def paths() -> Node:
    return {
        **_under("", "", tag="Bills"),
        **_under("/admin/accounts/{account}", " of an account", _ACCOUNT, tag="Accounts"),
        **_under("/admin", " of all accounts", tag="Accounts"),
    }


def _under(base: str, whose: str, *in_it: Node, tag: str) -> Node:
    """The lists below a path; of all accounts together there is no statement."""
    root = AT_ROOT if base else {}
    found: Node = {}
    for path, (summary, parameters) in _LISTS.items():
        if (path, base) in (("/statement", "/admin"), ("/trail", "")):
            continue
        for ending in ("", "{ending}"):
            name = f"{summary}{whose}{', as the ending says' if ending else ''}"
            given = [*in_it, *([_ENDING] if ending else []), *parameters]
            found[base + path + ending] = {"get": _list(name, ref(_SCHEMAS[path]), given, tag, bool(ending)), **root}
    ledger = {"200": answer("The file.", TEXT)}
    ledger["200"]["content"] = {"text/plain": {"schema": TEXT}, "text/csv": {"schema": TEXT}}
    given = [*in_it, _LEDGER, *_RANGE, _BOOKS_BY, _BOOKS]
    books = _get(f"Statement{whose} as a ledger", ledger, given, tag)
    found[f"{base}/statement{{ledger}}"] = {"get": books, **root}
    one = {"200": answer("The order, and its transfers.", ref("OneOrder"))}
    found[f"{base}/orders/{{id}}"] = {"get": _get(f"Order{whose} by its id", one, [*in_it, _ORDER], tag), **root}
    return found


def _list(summary: str, schema: Node, parameters: list[Node], tag: str, has_ending: bool) -> Node:
    served = answer("The rows, and what they are of.", schema, headers={"Link": header("The next page.")})
    served["content"]["text/csv"] = {"schema": TEXT}
    name = summary.partition(",")[0].lower().replace(" ", "_") + ("_as" if has_ending else "")
    return _get(summary, {"200": served}, parameters, tag, name)


def _get(summary: str, answers: Node, parameters: list[Node], tag: str, name: str = "") -> Node:
    more: Node = {} if tag == "Bills" else {"security": [{"management": []}]}
    errors = (400, 401, 429, *((404,) if tag == "Bills" else (403, 404)))
    return operation(summary, tag, answers, errors, parameters=parameters, name=name, words=_WORDS, **more)


_FLAGS = ("streamed",)
_COUNTS = ("prompt_tokens", "answer_tokens", "events", "orders")


def _row(columns: tuple[str, ...]) -> Node:
    kinds = {**dict.fromkeys(_FLAGS, FLAG), **dict.fromkeys(_COUNTS, or_null(WHOLE))}
    return object_of({name: kinds.get(name, or_null(TEXT)) for name in columns})


def _entry() -> Node:
    pair = array_of(or_null(TEXT))
    return object_of(
        {
            **dict.fromkeys(TRAIL_COLUMNS, or_null(TEXT)),
            **dict.fromkeys(("time", "who", "what"), TEXT),
            "id": WHOLE,
            "way": one_of(" ".join(WAYS)),
            "changes": object_of({}, additionalProperties={**pair, "description": "From what to what."}),
        }
    )


def schemas() -> Node:
    about = {"from": or_null(TEXT), "to": or_null(TEXT), "zone": one_of("UTC"), "as_of": TEXT}
    groups = {column: or_null(TEXT) for columns in GROUP_COLUMNS.values() for column in columns}
    counted = _row(COUNTED)
    moved = {name: or_null(TEXT) for name in ("set_aside_usd", "given_back_usd", "cost_usd", "event_price_usd")}
    transfer = object_of(
        {
            **dict.fromkeys(("id", "time", "what", "amount_usd", "above_hold_usd"), TEXT),
            **moved,
            "events": or_null(WHOLE),
        }
    )
    order = _row(ORDER_COLUMNS)
    money = dict.fromkeys(("paid_in_usd", "paid_out_usd", "given_back_usd", "fares_usd"), TEXT)
    whole = {**money, "cost_usd": or_null(TEXT), "orders": WHOLE, "events": or_null(WHOLE)}
    balances = dict.fromkeys(("account", "plan", "opening_balance_usd", "closing_balance_usd"), TEXT)
    return {
        "OrderList": object_of({"data": array_of(order), **about, "next": or_null(TEXT)}),
        "OneOrder": object_of(
            {
                "data": object_of({**order["properties"], "transfers": array_of(transfer)}),
                "zone": one_of("UTC"),
                "as_of": TEXT,
            }
        ),
        "AccountStatement": object_of(
            {
                "data": array_of(_row(STATEMENT_COLUMNS)),
                **about,
                **balances,
                "totals": object_of(whole),
                "next": or_null(TEXT),
            }
        ),
        "TrailList": object_of({"data": array_of(_entry()), **about, "next": or_null(TEXT)}),
        "Totals": object_of({"data": array_of(object_of(counted["properties"], groups)), **about, "totals": counted}),
    }
