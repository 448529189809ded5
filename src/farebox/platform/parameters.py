"""The parameters of each path of the run API, and what becomes of each here.

A parameter that changes what an answer means is either served or refused by its name: ignored in silence, its caller
would misread the answer. So each parameter of every path has a line. Source: Apify's OpenAPI document of August 2026,
which a test compares with this table. A parameter that the document does not have is ignored, as Apify ignores it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from farebox.core.errors import Refusal
from farebox.platform.documents import BUILD_NUMBER


class Served(Struct, frozen=True):
    """Done as on Apify's platform, or refused where its value is wrong."""


class Idle(Struct, frozen=True):
    """Has no effect here, and needs none: `why`."""

    why: str


class Refused(Struct, frozen=True):
    """Asks for what does not exist here: refused, saying `why`, unless its value is one of `but`, which ask for what is
    done anyway."""

    why: str
    but: tuple[str, ...] = ()


Fate = Served | Idle | Refused
Fates = Mapping[str, Fate]

SERVED = Served()
_OFF = ("0", "false", "False")

_BEGIN: Fates = {
    "timeout": SERVED,
    "memory": Idle("shown in the run's options; an order takes no memory of its own"),
    "maxItems": Refused("this Actor is paid by the event, not by the item; bound it with maxTotalChargeUsd"),
    "maxTotalChargeUsd": SERVED,
    "restartOnError": Idle("an order that fails becomes an item; a run whose process dies always goes on"),
    "build": Refused(f"there is one build, `latest` or {BUILD_NUMBER}", but=("latest", BUILD_NUMBER)),
    "webhooks": Refused("no webhook is called here when a run ends; wait for it with waitForFinish", but=("W10=",)),
}
"""Parameters of a call that begins a run. (`W10=` is an empty list.)"""

_ONE_FORMAT = Idle("read for `xml` alone, and that format is refused")
_FEED = Idle("read for `rss` alone, and that format is refused")
_SIGNATURE = Idle("a token is needed, with a signature or without one")

_ITEMS: Fates = {
    **dict.fromkeys(("format", "offset", "limit", "desc", "attachment", "bom", "delimiter", "skipHeaderRow"), SERVED),
    **dict.fromkeys(("fields", "outputFields", "omit", "unwind", "flatten"), SERVED),
    **dict.fromkeys(("clean", "skipHidden", "skipEmpty"), SERVED),
    "view": Refused("datasets have no views here; name what you want with `fields`"),
    "simplified": Refused("belongs to Apify's old crawler, whose results do not exist here", but=_OFF),
    "skipFailedPages": Refused("belongs to Apify's old crawler, whose results do not exist here", but=_OFF),
    "xmlRoot": _ONE_FORMAT,
    "xmlRow": _ONE_FORMAT,
    "feedTitle": _FEED,
    "feedDescription": _FEED,
}
_OF_DATASET: Fates = {**_ITEMS, "signature": _SIGNATURE}

_LIST: Fates = dict.fromkeys(("offset", "limit", "desc", "status", "startedAfter", "startedBefore"), SERVED)
_LAST: Fates = dict.fromkeys(("status", "origin"), SERVED)
_WAIT: Fates = {"waitForFinish": SERVED}
_OF_BUILD: Fates = {"waitForFinish": Idle("the one build has finished")}
_LOG: Fates = dict.fromkeys(("stream", "download", "raw"), SERVED)
_KEYS: Fates = {
    **dict.fromkeys(("exclusiveStartKey", "limit", "prefix"), SERVED),
    "collection": Refused("key-value stores have no schema here, and so no collections; use `prefix`"),
    "signature": _SIGNATURE,
}
_RECORD: Fates = {"attachment": SERVED, "signature": _SIGNATURE}

_SYNC: Fates = {**_BEGIN, "outputRecordKey": SERVED}
_SYNC_ITEMS: Fates = {**_BEGIN, **_ITEMS}

_UPDATE: Fates = {
    "runId": SERVED,
    "statusMessage": SERVED,
    "isStatusMessageTerminal": SERVED,
    "generalAccess": Refused("what a run leaves is its account's alone", but=("RESTRICTED", "FOLLOW_USER_SETTING")),
}
"""Members of the body of an update."""

_CHARGE: Fates = {
    "eventName": SERVED,
    "count": SERVED,
    "requestId": Idle("the run says who pays"),
}

PARAMETERS: Mapping[str, Fates] = MappingProxyType(
    {
        "GET /actors/{actor}": {},
        "GET /actors/{actor}/builds/default": _OF_BUILD,
        "POST /actors/{actor}/runs": {
            **_BEGIN,
            **_WAIT,
            "forcePermissionLevel": Idle("no Actor's code runs here that could be given permissions"),
        },
        "GET /actors/{actor}/runs": _LIST,
        "POST /actors/{actor}/run-sync": _SYNC,
        "GET /actors/{actor}/run-sync": _SYNC,
        "POST /actors/{actor}/run-sync-get-dataset-items": _SYNC_ITEMS,
        "GET /actors/{actor}/run-sync-get-dataset-items": _SYNC_ITEMS,
        "GET /actors/{actor}/runs/last": {**_LAST, **_WAIT},
        "GET /actors/{actor}/runs/last/log": {**_LAST, **_LOG},
        "GET /actors/{actor}/runs/last/dataset": _LAST,
        "GET /actors/{actor}/runs/last/dataset/items": {**_LAST, **_OF_DATASET},
        "GET /actors/{actor}/runs/last/key-value-store": _LAST,
        "GET /actors/{actor}/runs/last/key-value-store/keys": {**_LAST, **_KEYS},
        "GET /actors/{actor}/runs/last/key-value-store/records/{key}": {**_LAST, **_RECORD},
        "GET /actors/{actor}/runs/last/request-queue": _LAST,
        "GET /actor-runs": _LIST,
        "GET /actor-runs/{id}": _WAIT,
        "PUT /actor-runs/{id}": _UPDATE,
        "POST /actor-runs/{id}/abort": {"gracefully": Idle("every abort is: orders on their way are answered")},
        "POST /actor-runs/{id}/charge": _CHARGE,
        "POST /actor-runs/{id}/reboot": {},
        "GET /actor-runs/{id}/log": _LOG,
        "GET /actor-runs/{id}/dataset": {},
        "GET /actor-runs/{id}/dataset/items": _OF_DATASET,
        "POST /actor-runs/{id}/dataset/items": {},
        "GET /actor-runs/{id}/key-value-store": {},
        "GET /actor-runs/{id}/key-value-store/keys": _KEYS,
        "GET /actor-runs/{id}/key-value-store/records/{key}": _RECORD,
        "PUT /actor-runs/{id}/key-value-store/records/{key}": {},
        "GET /actor-runs/{id}/request-queue": {},
        "GET /datasets/{id}": {},
        "GET /datasets/{id}/items": _OF_DATASET,
        "POST /datasets/{id}/items": {},
        "GET /key-value-stores/{id}": {},
        "GET /key-value-stores/{id}/keys": _KEYS,
        "GET /key-value-stores/{id}/records/{key}": _RECORD,
        "PUT /key-value-stores/{id}/records/{key}": {},
        "GET /request-queues/{id}": {},
        "GET /actor-builds/{id}": _OF_BUILD,
        "GET /logs/{id}": _LOG,
        "GET /users/me": {},
        "GET /users/{id}": {},
    }
)
"""By method and path, below /v2. (`acts` are `actors`.)"""


def check(line: str, given: Mapping[str, str]) -> None:
    """Check the values given for a line of PARAMETERS (`METHOD PATH`). Raises Refusal 400, naming the parameter."""
    method = line.partition(" ")[0]
    if given.get("method", method).upper() != method:
        raise _refusal("method", f"ask with {given['method'][:20]} itself: this was a {method}")
    fates = PARAMETERS[line]
    for name, value in given.items():
        fate = fates.get(name)
        if isinstance(fate, Refused) and value and value not in fate.but:
            raise _refusal(name, fate.why)


def _refusal(name: str, why: str) -> Refusal:
    return Refusal(400, "invalid-value", f"{name}: {why}")
