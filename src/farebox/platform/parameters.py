"""The parameters of each path of the run API, and what becomes of each here.

A parameter that changes what an answer means is either served or refused by its name: ignored in silence, its caller
would misread the answer. So each parameter of every path has a line. Source: Apify's OpenAPI document of August 2026,
which a test compares with this table. A parameter that the document does not have is ignored, as Apify ignores it.
"""

from collections.abc import Mapping

from msgspec import Struct

from farebox.platform.documents import BUILD_NUMBER, wrong


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

_CRAWLER = Refused("belongs to Apify's old crawler, whose results do not exist here", but=("0", "false", "False"))
_SIGNATURE = Idle("a token is needed, with a signature or without one")

_ITEMS: Fates = {
    **dict.fromkeys(("format", "offset", "limit", "desc", "attachment", "bom", "delimiter", "skipHeaderRow"), SERVED),
    **dict.fromkeys(("fields", "outputFields", "omit", "unwind", "flatten"), SERVED),
    **dict.fromkeys(("clean", "skipHidden", "skipEmpty"), SERVED),
    "view": Refused("datasets have no views here; name what you want with `fields`"),
    **dict.fromkeys(("simplified", "skipFailedPages"), _CRAWLER),
    **dict.fromkeys(("xmlRoot", "xmlRow"), Idle("read for `xml` alone, and that format is refused")),
    **dict.fromkeys(("feedTitle", "feedDescription"), Idle("read for `rss` alone, and that format is refused")),
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
    **dict.fromkeys(("runId", "statusMessage", "isStatusMessageTerminal"), SERVED),
    "generalAccess": Refused("what a run leaves is its account's alone", but=("RESTRICTED", "FOLLOW_USER_SETTING")),
}
"""Members of the body of an update."""

_CHARGE: Fates = {"eventName": SERVED, "count": SERVED, "requestId": Idle("the run says who pays")}

_OF_RUN: Mapping[str, Fates] = {
    "GET ": _WAIT,
    "PUT ": _UPDATE,
    "POST /abort": {"gracefully": Idle("every abort is: orders on their way are answered")},
    "POST /charge": _CHARGE,
    "POST /reboot": {},
    "GET /log": _LOG,
    "GET /dataset": {},
    "GET /dataset/items": _OF_DATASET,
    "POST /dataset/items": {},
    "GET /key-value-store": {},
    "GET /key-value-store/keys": _KEYS,
    "GET /key-value-store/records/{key}": _RECORD,
    "PUT /key-value-store/records/{key}": {},
    "GET /request-queue": {},
}
_WITH_IDS = ("log", "dataset", "key-value-store", "request-queue")


def lines_of_run(below: str) -> list[str]:
    """The lines of PARAMETERS for a line below a run's own path: there; at the id of what the run left
    (`/dataset/items` is `/datasets/{id}/items`, too); and, if it reads, at the Actor's last run."""
    method, path = below.split(" ")
    name, _, rest = path[1:].partition("/")
    at_its_id = [f"{method} /{name}s/{{id}}{rest and '/'}{rest}"] if name in _WITH_IDS else []
    at_the_last = [f"GET /actors/{{actor}}/runs/last{path}"] if method == "GET" else []
    return [f"{method} /actor-runs/{{id}}{path}", *at_its_id, *at_the_last]


PARAMETERS: Mapping[str, Fates] = {
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
    "GET /actor-runs": _LIST,
    **{
        line: {**_LAST, **fates} if "/runs/last" in line else fates
        for below, fates in _OF_RUN.items()
        for line in lines_of_run(below)
    },
    "GET /actor-builds/{id}": _OF_BUILD,
    "GET /users/me": {},
    "GET /users/{id}": {},
}
"""By method and path, below /v2. (`acts` are `actors`.)"""


def check(line: str, given: Mapping[str, str]) -> None:
    """Check the values given for a line of PARAMETERS (`METHOD PATH`). Raises Refusal 400, naming the parameter."""
    method = line.partition(" ")[0]
    if given.get("method", method).upper() != method:
        raise wrong("method", f"ask with {given['method'][:20]} itself: this was a {method}")
    fates = PARAMETERS[line]
    for name, value in given.items():
        fate = fates.get(name)
        if isinstance(fate, Refused) and value and value not in fate.but:
            raise wrong(name, fate.why)
