"""Where alerts go: Farebox's own paths below the root."""

from farebox.core.alerts import FORMS, KINDS, TEST
from farebox.core.schemas import FLAG, NAME, TEXT, WHOLE, array_of, object_of, one_of, or_null, ref
from farebox.web.alerts import DELIVERIES_MAX, PAGE
from farebox.web.openapi.operations import AT_ROOT, Node, answer, body_of, data, in_path, operation, parameter

_ALERT = in_path("alert", "Its number, as `GET /admin/alerts` tells it.", {"type": "integer", "minimum": 1})
_MOMENT: Node = {"type": "string", "format": "date-time"}
_WORDS = {
    401: "No management key, or one that is not known.",
    403: "A caller's key, or the management key of another account.",
}


def paths() -> Node:
    receiver = {"200": data("Its data.", ref("Alert"))}
    made = answer("It is. The secret is told here alone.", object_of({"data": ref("Alert"), "secret": or_null(TEXT)}))
    deleted = {"200": answer("It is.", object_of({"deleted": FLAG}))}
    deliveries = {"200": data("The latest first.", array_of(ref("AlertDelivery")))}
    tested = {"200": data("What became of it.", ref("AlertDelivery"))}
    pages = [
        parameter("limit", {**WHOLE, "minimum": 1, "maximum": DELIVERIES_MAX}, f"At most so many; {PAGE} if absent."),
        parameter("before", NAME, "The id of the last one that is known: only those behind it."),
    ]
    return {
        "/admin/alerts": {
            "get": _operation("Alerts", {"200": data("All of them.", array_of(ref("Alert")))}),
            "post": _operation("New alert", {"201": made}, body=ref("NewAlert")),
            **AT_ROOT,
        },
        "/admin/alerts/{alert}": {
            "get": _operation("Alert by its number", receiver, _ALERT),
            "delete": _operation("Remove an alert", deleted, _ALERT),
            **AT_ROOT,
        },
        "/admin/alerts/{alert}/test": {
            "post": _operation("Test an alert", tested, _ALERT, body=ref("Nothing")),
            **AT_ROOT,
        },
        "/admin/alerts/{alert}/deliveries": {
            "get": _operation("Deliveries of an alert", deliveries, _ALERT, *pages),
            **AT_ROOT,
        },
    }


def _operation(summary: str, answers: Node, *parameters: Node, body: Node | None = None) -> Node:
    return operation(
        summary,
        "Alerts",
        answers,
        (400, 401, 403, 404, 429),
        parameters=parameters,
        body=None if body is None else body_of(body),
        words=_WORDS,
        security=[{"management": []}],
    )


def schemas() -> Node:
    form, kinds = one_of(" ".join(FORMS)), array_of(one_of(" ".join(KINDS)))
    return {
        "Alert": object_of(
            {
                "id": WHOLE,
                **dict.fromkeys(("label", "url"), TEXT),
                "form": form,
                "kinds": kinds,
                "account": or_null(TEXT),
                "created_at": _MOMENT,
            },
            description="Of its URL only the host is shown.",
        ),
        "AlertDelivery": object_of(
            {
                "id": TEXT,
                "kind": one_of(f"{' '.join(KINDS)} {TEST}"),
                "state": one_of("due delivered given_up"),
                "attempts": WHOLE,
                "problem": or_null(TEXT),
                "created_at": _MOMENT,
                **dict.fromkeys(("next_attempt_at", "ended_at"), or_null(_MOMENT)),
            }
        ),
        "NewAlert": object_of(
            {"url": NAME},
            {"label": or_null(TEXT), "form": or_null(form), "kinds": or_null(kinds), "account": or_null(NAME)},
            additionalProperties=False,
            description="It is told of these `kinds`, or of all; of one `account`, or of everything.",
        ),
    }
