"""Managing keys and accounts: OpenRouter's paths under each base, Farebox's own below the root."""

from collections.abc import Iterable

from farebox.accounts import OVERLAP_SECONDS_MAX
from farebox.core.allowances import AMOUNTS, COUNTS, MODELS
from farebox.core.caching import SECONDS_MAX
from farebox.core.moving.foreign_keys import OWN as FOREIGN_COLUMNS
from farebox.core.schemas import FLAG, NAME, NUMBER, OBJECT, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.end_users import PAGE_MAX
from farebox.web.account import RESETS
from farebox.web.changes import KEYS_MAX, OVERLAP_SECONDS
from farebox.web.openapi.operations import AT_ROOT, Node, answer, body_of, data, header, in_path, operation, parameter

_WHOSE = "An account's id. If absent the management key's own account, else the one called `default`, or the only one."
_WORKSPACE = parameter("workspace_id", NAME, "An account's id. The management key's own account if absent, or all.")
_HASH = in_path("hash", "The key's, as `GET /keys` lists it.")
_ACCOUNT = in_path("account", "Its name, or its id.")
_WORDS = {
    401: "No management key, or one that is not known.",
    403: "A caller's key, or the management key of another account.",
    409: "Another top-up was booked under this idempotency key; or the account has money that is held, or owes some.",
}
_MOMENT: Node = {"type": "string", "format": "date-time"}


def paths() -> Node:
    key, account = {"200": data("Its data.", ref("ManagedKey"))}, data("Its data.", ref("Account"))
    made = answer("It is made. The key itself is told here alone.", object_of({"data": ref("ManagedKey"), "key": TEXT}))
    deleted = {"200": answer("It is.", object_of({"deleted": FLAG}))}
    listing = [
        parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Keys to skip; 100 are listed."),
        parameter("include_disabled", one_of("true false"), "Whether disabled keys are listed, too."),
        _WORKSPACE,
    ]
    date: Node = {"type": "string", "format": "date"}
    days = [
        parameter("date", date, "One UTC day, of the last 30 or today. The last 30 whole days if absent."),
        parameter("api_key_hash", NAME, "Of one key alone."),
        parameter("user_id", TEXT, "There are no users here: nothing is listed for one."),
        _WORKSPACE,
    ]
    note = "A name of yours: a top-up is booked once under it."
    once = parameter("Idempotency-Key", NAME, note, "header", required=True)
    repeated = data("It was booked before.", ref("TopUp"), headers={"Idempotency-Replayed": header("`true`.")})
    topped = {"201": data("It is booked.", ref("TopUp")), "200": repeated}
    closed = {"200": data("It is; what was left is paid out.", ref("ClosedAccount"))}
    corrected = {
        "201": data("It is booked.", ref("Correction")),
        "200": data("It was booked before.", ref("Correction"), headers={"Idempotency-Replayed": header("`true`.")}),
    }
    users = [
        parameter("end_user", NAME, "One alone: by its name, or as it is kept."),
        parameter("limited", one_of("true false"), "Those with limits of their own; else those with fares this month."),
        parameter("after", NAME, "Those behind this one."),
        parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}, "Of a page; 100 if absent."),
    ]
    ended = answer("They, and the limits that each has by default.", ref("EndUsers"))
    imported = {"200": data("The keys as they are here.", array_of(ref("ImportedKey")))}
    return {
        "/keys": {
            "get": _operation("Keys", {"200": data("Its keys.", array_of(ref("ManagedKey")))}, *listing),
            "post": _operation("New key", {"201": made}, body=ref("NewKey")),
        },
        "/keys/{hash}": {
            "get": _operation("Key by its hash", key, _HASH),
            "patch": _operation("Change a key", key, _HASH, body=ref("KeyChange")),
            "delete": _operation("Delete a key, for ever", deleted, _HASH),
        },
        "/keys/{hash}/rotate": {
            "post": _operation("Rotate a key", {"201": made}, _HASH, body=ref("Rotation")),
        },
        "/activity": {
            "get": _operation("Activity by day and model", {"200": data("Its days.", array_of(ref("Activity")))}, *days)
        },
        "/admin/accounts": {
            "get": _operation("Accounts", {"200": data("All of them.", array_of(ref("Account")))}),
            "post": _operation("New account", {"201": account}, body=ref("NewAccount")),
            **AT_ROOT,
        },
        "/admin/accounts/{account}": {
            "get": _operation("Account", {"200": data("Its data.", ref("AccountInFull"))}, _ACCOUNT),
            "patch": _operation("Change an account", {"200": account}, _ACCOUNT, body=ref("AccountChange")),
            **AT_ROOT,
        },
        "/admin/accounts/{account}/close": {
            "post": _operation("Close an account", closed, _ACCOUNT, errors=(409,), body=ref("Closing")),
            **AT_ROOT,
        },
        "/admin/accounts/{account}/reopen": {
            "post": _operation("Open an account again", {"200": account}, _ACCOUNT, body=ref("Nothing")),
            **AT_ROOT,
        },
        "/admin/accounts/{account}/end-users": {
            "get": _operation("End users of an account", {"200": ended}, _ACCOUNT, *users),
            "patch": _operation(
                "Limit an end user of an account, or each",
                {"200": data("Its limits.", ref("LimitedEndUser"))},
                _ACCOUNT,
                body=ref("EndUserChange"),
            ),
            **AT_ROOT,
        },
        "/admin/corrections": {
            "post": _operation("Correct a fare of an account", corrected, body=ref("NewCorrection")),
            **AT_ROOT,
        },
        "/admin/keys/import": {
            "post": _operation("Import keys by their digests", imported, body=ref("ForeignKeys")),
            **AT_ROOT,
        },
        "/admin/top-ups": {
            "post": _operation("Top up an account", topped, once, errors=(409,), body=ref("NewTopUp")),
            **AT_ROOT,
        },
    }


def _operation(
    summary: str, answers: Node, *parameters: Node, errors: Iterable[int] = (), body: Node | None = None
) -> Node:
    return operation(
        summary,
        "Accounts" if "ccount" in summary else "Keys",
        answers,
        (400, 401, 403, 404, 429, *errors),
        parameters=parameters,
        body=None if body is None else body_of(body),
        words=_WORDS,
        security=[{"management": []}],
    )


_GIVEN: Node = {"oneOf": [TEXT, {**NUMBER, "minimum": 0}]}
"""An amount in a request: exact text, or a number."""

_GIVEN_OR_NULL = or_null(_GIVEN)

_COUNTED = {**dict.fromkeys(COUNTS, WHOLE), **dict.fromkeys(AMOUNTS, TEXT)}
_LIMIT = {"limit": or_null(NUMBER), "limit_reset": or_null({"type": "string", "enum": list(RESETS.values())})}


def schemas() -> Node:
    """What is answered; what is sent is in `_sent`."""
    spent = {f"{of}usage{per}": NUMBER for of in ("", "byok_") for per in ("", "_daily", "_weekly", "_monthly")}
    key = {
        **dict.fromkeys(("hash", "name", "label", "workspace_id"), TEXT),
        "disabled": FLAG,
        **_LIMIT,
        "limit_remaining": or_null(NUMBER),
        "include_byok_in_limit": FLAG,
        **spent,
        "created_at": _MOMENT,
        **dict.fromkeys(("updated_at", "expires_at", "last_used_at"), or_null(_MOMENT)),
        **{name: {} for name in ("creator_user_id", "external_user")},
        "farebox_cache_seconds": or_null(WHOLE),
        "farebox_may_store": FLAG,
        "farebox_limits": ref("Limits"),
    }
    account = {
        **dict.fromkeys(("id", "name", "plan"), TEXT),
        "terms": one_of("prepaid postpaid"),
        **dict.fromkeys(("limit_usd", "available_usd"), or_null(TEXT)),
        **dict.fromkeys(("balance_usd", "held_usd"), TEXT),
        "created_at": _MOMENT,
        "closed_at": or_null(_MOMENT),
        "limits": object_of({}, {**_COUNTED, MODELS: array_of(TEXT)}),
    }
    end_user = {
        "end_user": TEXT,
        **dict.fromkeys(("limits", "limits_in_force"), ref("Limits")),
        "used": object_of({}, _COUNTED),
        "orders_this_month": WHOLE,
        "fares_this_month_usd": NUMBER,
        "latest_at": or_null(_MOMENT),
    }
    activity = {
        **dict.fromkeys(("date", "model", "model_permaslug", "endpoint_id", "provider_name"), TEXT),
        **dict.fromkeys(("usage", "byok_usage_inference"), NUMBER),
        **dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"), WHOLE),
    }
    return {
        "ManagedKey": object_of(key),
        "Activity": object_of(activity),
        "Account": object_of(account),
        "AccountInFull": object_of(
            {**account, "low_balance_usd": TEXT, "used": object_of({}, _COUNTED), **dict.fromkeys(spent, TEXT)}
        ),
        "TopUp": object_of({**account, "amount_usd": TEXT}),
        "ClosedAccount": object_of({**account, "paid_out_usd": TEXT}),
        "Correction": object_of(
            {
                **dict.fromkeys(("account", "hold_id"), TEXT),
                "generation_id": or_null(TEXT),
                **dict.fromkeys(("given_back_usd", "fare_usd"), TEXT),
            }
        ),
        "EndUsers": object_of(
            {"data": array_of(object_of(end_user)), "default_limits": ref("Limits"), "next": or_null(TEXT)}
        ),
        "LimitedEndUser": object_of({"end_user": or_null(TEXT), "limits": ref("Limits")}),
        "ImportedKey": object_of({**dict.fromkeys(("hash", "name", "account"), TEXT), "was_there": FLAG}),
        **_sent(),
    }


def _sent() -> Node:
    limits = {name: or_null(WHOLE) for name in COUNTS} | dict.fromkeys(AMOUNTS, _GIVEN_OR_NULL)
    limits[MODELS] = or_null(array_of(TEXT))
    limits_of_key = {
        **_LIMIT,
        "farebox_limits": or_null(ref("Limits")),
        "farebox_cache_seconds": or_null({**WHOLE, "minimum": 0, "maximum": SECONDS_MAX}),
        "farebox_may_store": or_null(FLAG),
    }
    terms = {
        "postpaid": or_null(FLAG),
        **dict.fromkeys(("prepaid_usd", "limit_usd"), _GIVEN_OR_NULL),
        "limits": or_null(ref("Limits")),
    }
    return {
        "Limits": object_of(
            {},
            limits,
            additionalProperties=False,
            description="None of them is a limit that is not there; amounts are in USD, text or numbers in a request"
            " (where null lifts one), numbers in an answer.",
        ),
        "EndUserChange": object_of(
            {"limits": ref("Limits")},
            {"end_user": or_null({**TEXT, "description": "Each that has none of its own, if absent."})},
            additionalProperties=False,
        ),
        "NewKey": object_of(
            {"name": NAME},
            {"workspace_id": or_null({**TEXT, "description": _WHOSE}), "expires_at": or_null(_MOMENT), **limits_of_key},
        ),
        "KeyChange": object_of({}, {"name": or_null(TEXT), "disabled": or_null(FLAG), **limits_of_key}),
        "NewAccount": object_of(
            {"name": NAME, "plan": NAME},
            terms,
            additionalProperties=False,
            description="`prepaid_usd` is for who pays first, `limit_usd` for who is `postpaid`.",
        ),
        "Rotation": object_of(
            {},
            {
                "overlap_seconds": or_null({**WHOLE, "minimum": 0, "maximum": OVERLAP_SECONDS_MAX}),
                "expires_at": or_null(_MOMENT),
            },
            additionalProperties=False,
            description=f"For how long the old secret works, too: {OVERLAP_SECONDS} seconds if absent.",
        ),
        "AccountChange": object_of(
            {},
            {
                "plan": or_null(NAME),
                "name": or_null(NAME),
                "limits": or_null(ref("Limits")),
                "low_balance_usd": _GIVEN_OR_NULL,
            },
            additionalProperties=False,
            description="With less than `low_balance_usd` left it is told as low; 0: never, null: below $1.",
        ),
        "Closing": object_of({}, {"reason": or_null(TEXT)}, additionalProperties=False),
        "Nothing": object_of({}, {}, additionalProperties=False),
        "NewCorrection": object_of(
            {"order": NAME, "reason": NAME},
            dict.fromkeys(("amount_usd", "cost_usd"), _GIVEN_OR_NULL),
            additionalProperties=False,
            description="`order` is a generation's id or a hold's. `amount_usd` is given back, or all that is left of"
            " the fare; with `cost_usd` the fare is corrected to that cost.",
        ),
        "ForeignKeys": object_of(
            {"keys": array_of(OBJECT)},
            {"account": or_null(NAME)},
            additionalProperties=False,
            description=f"Up to {KEYS_MAX} keys, each with a `digest` (its SHA-256 in hexadecimal) and, if wanted,"
            f" {', '.join(FOREIGN_COLUMNS[1:])}; `account` is whose they are that name none.",
        ),
        "NewTopUp": object_of(
            {"account": NAME, "amount_usd": _GIVEN}, {"note": or_null(TEXT)}, additionalProperties=False
        ),
    }
