"""Managing keys and accounts: OpenRouter's paths under each base, Farebox's own below the root."""

from farebox.core.allowances import AMOUNTS, COUNTS, MODELS
from farebox.core.schemas import (
    ANYTHING,
    FLAG,
    NAME,
    NUMBER,
    TEXT,
    WHOLE,
    Schema,
    array_of,
    object_of,
    one_of,
    or_null,
    ref,
)
from farebox.web.account import RESETS
from farebox.web.openapi.operations import (
    AT_ROOT,
    BODY_ERRORS,
    Node,
    answer,
    body_of,
    header,
    in_path,
    operation,
    parameter,
    refusals,
)

TAGS = {
    "Keys": "Keys and activity in OpenRouter's shapes, for who has a management key.",
    "Accounts": "Accounts and top-ups, for who has a management key. Below the root, under no base.",
}

CREDENTIALS = {
    "management": {"type": "http", "scheme": "bearer", "description": "A management key, `sk-fb-management-...`."}
}

_WORKSPACE = parameter("workspace_id", NAME, "An account's id. The management key's own account if absent, or all.")
_HASH = in_path("hash", "The key's, as `GET /keys` lists it.")
_ACCOUNT = in_path("account", "Its name, or its id.")
_WORDS = {
    401: "No management key, or one that is not known.",
    403: "A caller's key, or the management key of another account.",
    409: "Another top-up was booked under this idempotency key.",
}
_DATE: Schema = {"type": "string", "format": "date"}
_MOMENT: Schema = {"type": "string", "format": "date-time"}


def paths() -> Node:
    key, account = _data("Its data.", ref("ManagedKey")), _data("Its data.", ref("Account"))
    made = answer("It is made. The key itself is told here alone.", _with_key())
    listing = [
        parameter("offset", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Keys to skip; 100 are listed."),
        parameter("include_disabled", one_of("true false"), "Whether disabled keys are listed, too."),
        _WORKSPACE,
    ]
    days = [
        parameter("date", _DATE, "One UTC day, of the last 30 or today. The last 30 whole days if absent."),
        parameter("api_key_hash", NAME, "Of one key alone."),
        parameter("user_id", TEXT, "There are no users here: nothing is listed for one."),
        _WORKSPACE,
    ]
    note = "A name of yours: a top-up is booked once under it."
    once = parameter("Idempotency-Key", NAME, note, "header", required=True)
    topped = ref("TopUp")
    repeated = {"Idempotency-Replayed": header("`true`.")}
    return {
        "/keys": {
            "get": _operation("Keys", _data("Its keys.", array_of(ref("ManagedKey"))), parameters=listing),
            "post": _operation("New key", made, 201, body=ref("NewKey")),
        },
        "/keys/{hash}": {
            "get": _operation("Key by its hash", key, parameters=[_HASH]),
            "patch": _operation("Change a key", key, parameters=[_HASH], body=ref("KeyChange")),
            "delete": _operation(
                "Delete a key, for ever", answer("It is.", object_of({"deleted": FLAG})), parameters=[_HASH]
            ),
        },
        "/activity": {
            "get": _operation(
                "Activity by day and model", _data("Its days.", array_of(ref("Activity"))), parameters=days
            )
        },
        "/admin/accounts": {
            "get": _operation("Accounts", _data("All of them.", array_of(ref("Account")))),
            "post": _operation("New account", account, 201, body=ref("NewAccount")),
            **AT_ROOT,
        },
        "/admin/accounts/{account}": {
            "get": _operation("Account", _data("Its data.", ref("AccountInFull")), parameters=[_ACCOUNT]),
            "patch": _operation(
                "Limit an account",
                account,
                parameters=[_ACCOUNT],
                body=object_of({}, {"limits": or_null(ref("Limits"))}, additionalProperties=False),
            ),
            **AT_ROOT,
        },
        "/admin/top-ups": {
            "post": _operation(
                "Top up an account",
                _data("It is booked.", topped),
                201,
                parameters=[once],
                body=ref("NewTopUp"),
                others={"200": {**_data("It was booked before.", topped), "headers": repeated}, **_refusals(409)},
            ),
            **AT_ROOT,
        },
    }


def _operation(
    summary: str,
    done: Node,
    status: int = 200,
    *,
    parameters: list[Node] | None = None,
    body: Schema | None = None,
    others: dict[str, Node] | None = None,
) -> Node:
    tag = "Accounts" if "ccount" in summary else "Keys"
    errors = _refusals(400, 401, 403, 404, 429, *(() if body is None else BODY_ERRORS))
    return operation(
        summary,
        tag,
        {str(status): done, **errors, **(others or {})},
        parameters=parameters or [],
        body=None if body is None else body_of(body),
        security=[{"management": []}],
    )


def _refusals(*statuses: int) -> dict[str, Node]:
    return refusals(statuses, words=_WORDS)


def _data(description: str, schema: Schema) -> Node:
    return answer(description, object_of({"data": schema}))


def _with_key() -> Schema:
    return object_of({"data": ref("ManagedKey"), "key": TEXT})


def schemas() -> dict[str, Schema]:
    spent = {f"{of}usage{per}": NUMBER for of in ("", "byok_") for per in ("", "_daily", "_weekly", "_monthly")}
    reset: Schema = {"type": "string", "enum": list(RESETS)}
    limit = {"limit": or_null(NUMBER), "limit_reset": or_null(reset)}
    numbers = {**dict.fromkeys(COUNTS, WHOLE), **dict.fromkeys(AMOUNTS, NUMBER)}
    key = {
        **dict.fromkeys(("hash", "name", "label", "workspace_id"), TEXT),
        "disabled": FLAG,
        **limit,
        "limit_remaining": or_null(NUMBER),
        "include_byok_in_limit": FLAG,
        **spent,
        "created_at": _MOMENT,
        **dict.fromkeys(("updated_at", "expires_at", "last_used_at"), or_null(_MOMENT)),
        **dict.fromkeys(("creator_user_id", "external_user"), ANYTHING),
        "farebox_limits": ref("Limits"),
    }
    account = {
        **dict.fromkeys(("id", "name", "plan"), TEXT),
        "terms": one_of("prepaid postpaid"),
        **dict.fromkeys(("limit_usd", "available_usd"), or_null(NUMBER)),
        **dict.fromkeys(("balance_usd", "held_usd"), NUMBER),
        "created_at": _MOMENT,
        "limits": ref("Limits"),
    }
    of_key = {**limit, "farebox_limits": or_null(ref("Limits"))}
    amount = or_null({"type": "number", "minimum": 0})
    return {
        "Limits": object_of(
            {},
            {**{name: or_null(each) for name, each in numbers.items()}, MODELS: or_null(array_of(TEXT))},
            additionalProperties=False,
            description="None of them is a limit that is not there; amounts are in USD. In a request null lifts one.",
        ),
        "ManagedKey": object_of(key),
        "NewKey": object_of({"name": NAME}, {"workspace_id": or_null(TEXT), "expires_at": or_null(_MOMENT), **of_key}),
        "KeyChange": object_of({}, {"name": or_null(TEXT), "disabled": or_null(FLAG), **of_key}),
        "Activity": object_of(
            {
                **dict.fromkeys(("date", "model", "model_permaslug", "endpoint_id", "provider_name"), TEXT),
                **dict.fromkeys(("usage", "byok_usage_inference"), NUMBER),
                **dict.fromkeys(("requests", "prompt_tokens", "completion_tokens"), WHOLE),
                **dict.fromkeys(("reasoning_tokens", "cached_tokens"), WHOLE),
            }
        ),
        "Account": object_of(account),
        "AccountInFull": object_of({**account, "used": object_of({}, numbers), **spent}),
        "NewAccount": object_of(
            {"name": NAME, "plan": NAME},
            {
                "postpaid": or_null(FLAG),
                "prepaid_usd": amount,
                "limit_usd": amount,
                "limits": or_null(ref("Limits")),
            },
            additionalProperties=False,
            description="`prepaid_usd` is for who pays first, `limit_usd` for who is `postpaid`.",
        ),
        "NewTopUp": object_of(
            {"account": NAME, "amount_usd": NUMBER}, {"note": or_null(TEXT)}, additionalProperties=False
        ),
        "TopUp": object_of({**account, "amount_usd": NUMBER}),
    }
