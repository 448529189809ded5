"""The run API of the Apify platform, below `/v2`; its paths and parameters are those of `platform/parameters.py`."""

import re
from collections.abc import Mapping
from typing import NamedTuple, get_args

from farebox.batch.entries import ORDERS_MAX
from farebox.batch.result_forms import ResultForm
from farebox.batch.running import CONCURRENCY, CONCURRENCY_MAX
from farebox.core.runs import RunStatus
from farebox.core.schemas import FLAG, NAME, NUMBER, OBJECT, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.platform.items import FORMATS as ITEM_FORMATS
from farebox.platform.parameters import PARAMETERS, Fate, Idle, Refused, Served, lines_of_run
from farebox.platform.priced_events import COUNT_MAX, PRICED_EVENT
from farebox.platform.run_calls import (
    KEY_LENGTH_MAX,
    MEMORY_MBYTES,
    SYNC_SECONDS_MAX,
    TIMEOUT_SECONDS_MAX,
    WAIT_SECONDS_MAX,
)
from farebox.web.openapi.operations import AT_ROOT, Node, answer, body_of, data, header, in_path, operation, parameter

_WORDS = {
    400: "A parameter or the body is wrong; the message names what.",
    402: "The account, or the run's limit, does not cover it.",
    403: "The run has finished.",
    404: "There is no such Actor, run or storage, or it is another account's.",
    405: "The platform alone charges this event.",
    408: "The body did not arrive in time, or the run did not finish.",
    429: "Too many requests: see `Retry-After`.",
}

_COUNT: Node = {"type": "integer", "minimum": 0}
_MOMENT: Node = {"type": "string", "format": "date-time"}
_NAMES = "Names of members, with commas between them."

_VALUES: Mapping[str, tuple[Node, str]] = {
    "timeout": ({**_COUNT, "maximum": TIMEOUT_SECONDS_MAX}, "Seconds that the run may take."),
    "maxTotalChargeUsd": (TEXT, "What the run may cost, in USD."),
    "waitForFinish": (_COUNT, f"Seconds to wait for its end, {WAIT_SECONDS_MAX} at most."),
    "outputRecordKey": (TEXT, "The record that is the answer; `OUTPUT` if absent."),
    "offset": (_COUNT, "Entries to skip."),
    "limit": (_COUNT, "Entries at most."),
    "desc": (FLAG, "The newest first."),
    "status": (TEXT, f"With commas between them: {', '.join(get_args(RunStatus))}."),
    "origin": (TEXT, "Who began it, as `meta.origin` says."),
    "startedAfter": (_MOMENT, "In UTC where it says no zone."),
    "startedBefore": (_MOMENT, "In UTC where it says no zone."),
    "format": (one_of(" ".join(ITEM_FORMATS)), "How items are written; `json` if absent."),
    "attachment": (FLAG, "A browser is to keep it as a file."),
    "bom": (FLAG, "Whether a byte order mark comes first; of csv it does if absent."),
    "delimiter": (TEXT, "Of csv: one character."),
    "skipHeaderRow": (FLAG, "Of csv."),
    "fields": (TEXT, f"Only these. {_NAMES}"),
    "outputFields": (TEXT, f"What `fields` are called in the answer. {_NAMES}"),
    "omit": (TEXT, f"All but these. {_NAMES}"),
    "unwind": (TEXT, f"A record for each element of these. {_NAMES}"),
    "flatten": (TEXT, f"What is nested in these stands beside them, as `a.b`. {_NAMES}"),
    "clean": (FLAG, "As `skipHidden` and `skipEmpty`."),
    "skipHidden": (FLAG, "Without members whose names begin with `#`."),
    "skipEmpty": (FLAG, "Without items that have no members."),
    "stream": (FLAG, "Until the run has finished."),
    "download": (FLAG, "A browser is to keep it as a file."),
    "raw": (FLAG, "With what colours a terminal."),
    "exclusiveStartKey": (TEXT, "Keys after this one."),
    "prefix": (TEXT, "Keys that begin so."),
    "memory": ({"type": "integer", "minimum": MEMORY_MBYTES[0], "maximum": MEMORY_MBYTES[1]}, ""),
}
"""Of parameters that are served, and of what is checked though it changes nothing."""

_IN_PATH = {
    "actor": "`apify~openrouter`, or its id.",
    "id": "Its id; of a run and of what it leaves, any one's.",
    "key": "Of the record.",
}

_RUN = data("The run.", ref("Run"))
_MADE = answer("It is done.", OBJECT)
_PAGING = {
    **{f"X-Apify-Pagination-{name}": header("Of the items.", WHOLE) for name in ("Offset", "Limit", "Count", "Total")},
    "X-Apify-Pagination-Desc": header("Whether the newest come first.", FLAG),
}
_ITEMS: Node = {
    "description": "Its items.",
    "headers": _PAGING,
    "content": {
        "application/json": {"schema": array_of({})},
        "application/jsonl": {"schema": TEXT},
        "text/csv": {"schema": TEXT},
    },
}
_RECORD: Node = {"description": "The record, of the type that it was left with.", "content": {"*/*": {"schema": {}}}}


class _Shown(NamedTuple):
    """What an operation is called, its answer, its body, and its errors beside those of all."""

    summary: str
    answer: Node
    body: Node | None = None
    errors: tuple[int, ...] = ()


_ANY_TYPE: Node = {"required": False, "content": {"*/*": {"schema": {}}}}
_OF_RUN: Mapping[str, _Shown] = {
    "GET ": _Shown("Run", _RUN),
    "GET /log": _Shown("Log of a run", answer("A line each, with its moment.", TEXT, media_type="text/plain")),
    "GET /dataset": _Shown("Dataset", data("The dataset.", ref("Dataset"))),
    "GET /dataset/items": _Shown("Items of a dataset", _ITEMS),
    "GET /key-value-store": _Shown("Key-value store", data("The store.", ref("Storage"))),
    "GET /key-value-store/keys": _Shown("Keys of a store", data("Its keys.", ref("StoreKeys"))),
    "GET /key-value-store/records/{key}": _Shown("Record of a store", _RECORD),
    "GET /request-queue": _Shown("Request queue, which is empty", data("The queue.", ref("Storage"))),
    "POST /dataset/items": _Shown("Leave items in a dataset", _MADE, body_of({"oneOf": [OBJECT, array_of(OBJECT)]})),
    "PUT /key-value-store/records/{key}": _Shown("Leave a record in a store", _MADE, _ANY_TYPE),
}
"""Below a run, and wherever else `lines_of_run` says."""

_INPUT = body_of(ref("RunInput"), required=False)
_STATUS = body_of(
    object_of({}, {"runId": or_null(TEXT), "statusMessage": or_null(TEXT), "isStatusMessageTerminal": or_null(FLAG)})
)
_CHARGED = body_of(
    object_of({"eventName": one_of(PRICED_EVENT), "count": {"type": "integer", "minimum": 1, "maximum": COUNT_MAX}})
)

_BEGIN_ERRORS = (402, 408)

_SHOWN: Mapping[str, _Shown] = {
    "GET /actors/{actor}": _Shown("Actor", data("The one there is.", OBJECT)),
    "GET /actors/{actor}/builds/default": _Shown("Build of the Actor", data("The one there is.", OBJECT)),
    "POST /actors/{actor}/runs": _Shown("Begin a run", _RUN, _INPUT, _BEGIN_ERRORS),
    "GET /actors/{actor}/runs": _Shown("Runs of the Actor", data("A page of them.", ref("RunList"))),
    **{
        f"{method} /actors/{{actor}}/{path}": _Shown(
            f"Run to its end, and show {what}, within {SYNC_SECONDS_MAX} s", shown, body, _BEGIN_ERRORS
        )
        for method, body in (("POST", _INPUT), ("GET", None))
        for path, what, shown in (
            ("run-sync", "a record of its store", _RECORD),
            ("run-sync-get-dataset-items", "its items", _ITEMS),
        )
    },
    **{
        line: each._replace(summary=f"{each.summary}: the last one") if "/runs/last" in line else each
        for below, each in _OF_RUN.items()
        for line in lines_of_run(below)
    },
    "GET /actor-runs": _Shown("Runs", data("A page of them.", ref("RunList"))),
    "PUT /actor-runs/{id}": _Shown("Say how far a run is", _RUN, _STATUS),
    "POST /actor-runs/{id}/abort": _Shown("Abort a run", _RUN),
    "POST /actor-runs/{id}/charge": _Shown("Charge events to a run's account", _MADE, _CHARGED, (402, 405)),
    "POST /actor-runs/{id}/reboot": _Shown("Reboot a run, which goes on", _RUN, None, (403,)),
    "GET /actor-builds/{id}": _Shown("Build by its id", data("The one there is.", OBJECT)),
    "GET /users/me": _Shown("User, who is the caller's account", data("The account.", OBJECT)),
    "GET /users/{id}": _Shown("User by its id or name", data("The account.", OBJECT)),
}
"""By the lines of PARAMETERS."""


def paths() -> Node:
    found: Node = {}
    for line in PARAMETERS:
        method, path = line.split(" ")
        found.setdefault(f"/v2{path}", {**AT_ROOT})[method.lower()] = _operation(line, method, path)
    return found


def _operation(line: str, method: str, path: str) -> Node:
    summary, done, body, errors = _SHOWN[line]
    makes = done is _MADE or errors == _BEGIN_ERRORS
    fates = {} if method == "PUT" or path.endswith("/charge") else PARAMETERS[line]  # there they are a body's members
    in_it = [name.strip("{}") for name in path.split("/") if name.startswith("{")]
    parameters = [*(in_path(name, _IN_PATH[name]) for name in in_it), *(_parameter(*each) for each in fates.items())]
    if path.endswith("/charge"):
        once = {"type": "string", "maxLength": KEY_LENGTH_MAX}
        parameters.append(parameter("Idempotency-Key", once, "A charge is counted once under it, for 180 s.", "header"))
    return operation(
        summary,
        "Actor runs",
        {"201" if makes else "200": done},
        (400, 401, 404, 429, *errors),
        parameters=parameters,
        body=body,
        name=re.sub(r"\W+", "_", line).strip("_").lower(),
        words=_WORDS,
        refusal="RunApiError",
        security=[{"bearer": []}, {"apiKey": []}, {"token": []}],
    )


def _parameter(name: str, fate: Fate) -> Node:
    schema, text = _VALUES.get(name, (TEXT, ""))
    match fate:
        case Served():
            pass
        case Idle(why):
            text = f"Changes nothing: {why}."
        case Refused(why, but):
            text = f"Refused{f' but for {chr(96)}{but[0]}{chr(96)}' if but else ''}: {why}."
    return parameter(name, schema, text)


def schemas() -> Node:
    run = {
        **dict.fromkeys(("id", "actId", "userId", "buildId", "buildNumber", "generalAccess"), TEXT),
        **dict.fromkeys(("defaultKeyValueStoreId", "defaultDatasetId", "defaultRequestQueueId"), TEXT),
        "status": {"type": "string", "enum": list(get_args(RunStatus))},
        "statusMessage": or_null(TEXT),
        "isStatusMessageTerminal": FLAG,
        "startedAt": _MOMENT,
        "finishedAt": or_null(_MOMENT),
        "exitCode": or_null(WHOLE),
        "usageTotalUsd": NUMBER,
        **dict.fromkeys(("meta", "stats", "options", "usage", "usageUsd", "pricingInfo", "chargedEventCounts"), OBJECT),
    }
    storage = {
        **dict.fromkeys(("id", "userId", "actId", "actRunId", "generalAccess", "consoleUrl"), TEXT),
        "name": or_null(TEXT),
        **dict.fromkeys(("createdAt", "modifiedAt", "accessedAt"), _MOMENT),
    }
    counted = dict.fromkeys(("count", "limit"), WHOLE)
    listed = object_of({"key": TEXT, "size": WHOLE, "recordPublicUrl": TEXT})
    return {
        "RunInput": object_of(
            {},
            {
                "requests": or_null({"oneOf": [TEXT, array_of(OBJECT, maxItems=ORDERS_MAX)]}),
                "concurrency": {"type": "integer", "minimum": 1, "maximum": CONCURRENCY_MAX, "default": CONCURRENCY},
                "maxTotalChargeUsd": {"oneOf": [TEXT, NUMBER]},
                "results": one_of(" ".join(ResultForm)),
            },
            description="`requests` are orders, each as in a batch's line: a list of them, or a text with one a line.",
        ),
        "Run": object_of(run),
        "RunList": object_of({**counted, "total": WHOLE, "offset": WHOLE, "desc": FLAG, "items": array_of(ref("Run"))}),
        "Storage": object_of(storage),
        "Dataset": object_of({**storage, "itemCount": WHOLE, "cleanItemCount": WHOLE}),
        "StoreKeys": object_of(
            {
                **counted,
                "items": array_of(listed),
                "isTruncated": FLAG,
                **dict.fromkeys(("exclusiveStartKey", "nextExclusiveStartKey"), or_null(TEXT)),
            }
        ),
        "RunApiError": object_of({"error": object_of({"type": NAME, "message": TEXT})}),
    }
