"""What Farebox answers beside orders and lists: tools for agents, probes and metrics, and this document."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from farebox.core.schemas import FLAG, NUMBER, OBJECT, TEXT, object_of, one_of, ref
from farebox.web.openapi.operations import AT_ROOT, STATUSES, Node, answer, body_of, operation

TAGS = {
    "Tools": "For agents, over the Model Context Protocol's streamable HTTP. Below the root, under no base.",
    "Operation": "For who watches over the process. Below the root, under no base.",
}

CREDENTIALS = {
    "metrics": {"type": "http", "scheme": "bearer", "description": "The token that `FAREBOX_METRICS_TOKEN` sets."}
}


def paths() -> Node:
    away = {503: "The books do not answer, there are no prices, or the gateway is stopping."}
    hidden = {401: "Another token than the one that is set.", 403: "None is set: this machine alone."}
    alive = answer("The process answers.", object_of({"status": one_of("ok")}))
    counted = answer("The exposition.", TEXT, media_type="text/plain")
    page = answer("The page.", TEXT, media_type="text/html")
    return {
        "/mcp": {"post": _message("A message of MCP", "mcp"), **AT_ROOT},
        "/": {
            "post": _message("A message of MCP, where the platform's own server is asked", "mcp_at_the_root"),
            **AT_ROOT,
        },
        "/healthz": _get("Whether the process answers", alive),
        "/readyz": _get("Whether orders can be served", answer("Orders can be served.", ref("Ready")), away),
        "/metrics": _get("Metrics, for Prometheus", counted, hidden, security=[{}, {"metrics": []}]),
        "/openapi.json": _get("This document", answer("The document.", OBJECT)),
        "/docs": _get("This document, for people", page, name="docs"),
    }


def _get(summary: str, shown: Node, errors: Mapping[int, str] = MappingProxyType({}), **more: Any) -> Node:
    """For anybody, where nothing else is said."""
    more = {"security": [{}], **more}
    return {"get": operation(summary, "Operation", {"200": shown}, errors, words=errors, **more), **AT_ROOT}


def _message(summary: str, name: str) -> Node:
    """Farebox's own refusals are in the envelope; those of the protocol have its form."""
    answers: Node = {
        "200": answer("The answer to a message that wants one.", ref("JsonRpc")),
        "202": {"description": "A message that wants no answer is taken."},
        "400": answer("It is no message, or of a version that is not spoken.", OBJECT),
        "406": answer("The client accepts no JSON.", OBJECT),
        "413": answer(STATUSES[413], OBJECT),
    }
    words = {404: "The extra `farebox[mcp]` is not installed."}
    body = body_of(ref("JsonRpc"))
    return operation(summary, "Tools", answers, (401, 404, 415, 429), words=words, name=name, requestBody=body)


def schemas() -> Node:
    return {
        "JsonRpc": object_of(
            {"jsonrpc": one_of("2.0")},
            {"id": {"oneOf": [TEXT, NUMBER]}, "method": TEXT, "params": OBJECT, "result": OBJECT, "error": OBJECT},
        ),
        "Ready": object_of({"status": one_of("ready"), "prices_are_stale": FLAG}),
    }
