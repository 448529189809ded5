"""What Farebox answers beside orders and lists: tools for agents, probes and metrics, and this document."""

from typing import Any

from farebox.core.schemas import FLAG, NUMBER, OBJECT, TEXT, Schema, object_of, one_of, ref
from farebox.web.openapi.operations import AT_ROOT, STATUSES, Node, answer, body_of, operation, refusals

TAGS = {
    "Tools": "For agents, over the Model Context Protocol's streamable HTTP. Below the root, under no base.",
    "Operation": "For who watches over the process. Below the root, under no base.",
}

CREDENTIALS = {
    "metrics": {"type": "http", "scheme": "bearer", "description": "The token that `FAREBOX_METRICS_TOKEN` sets."}
}

_ANYBODY: list[Node] = [{}]


def paths() -> Node:
    ready = {
        "200": answer("Orders can be served.", ref("Ready")),
        **refusals([503], words={503: "The books do not answer, there are no prices, or the gateway is stopping."}),
    }
    counted = {
        "200": answer("The exposition.", TEXT, media_type="text/plain"),
        **refusals(
            [401, 403], words={401: "Another token than the one that is set.", 403: "None is set: this machine alone."}
        ),
    }
    page = {"200": answer("The page.", TEXT, media_type="text/html")}
    alive = {"200": answer("The process answers.", object_of({"status": one_of("ok")}))}
    return {
        "/mcp": {"post": _message("/mcp"), **AT_ROOT},
        "/": {"post": _message("/"), **AT_ROOT},
        "/healthz": _get("Whether the process answers", alive),
        "/readyz": _get("Whether orders can be served", ready),
        "/metrics": _get("Metrics, for Prometheus", counted, security=[{}, {"metrics": []}]),
        "/openapi.json": _get("This document", {"200": answer("The document.", OBJECT)}),
        "/docs": _get("This document, for people", page, name="docs"),
    }


def _get(summary: str, answers: dict[str, Node], **more: Any) -> Node:
    return {"get": operation(summary, "Operation", answers, **{"security": _ANYBODY, **more}), **AT_ROOT}


def _message(path: str) -> Node:
    """Farebox's own refusals are in the envelope; those of the protocol have its form."""
    anything: Node = {
        "200": answer("The answer to a message that wants one.", ref("JsonRpc")),
        "202": {"description": "A message that wants no answer is taken."},
        "400": answer("It is no message, or of a version that is not spoken.", OBJECT),
        **refusals([401, 404, 415, 429], words={404: "The extra `farebox[mcp]` is not installed."}),
        "406": answer("The client accepts no JSON.", OBJECT),
        "413": answer(STATUSES[413], OBJECT),
    }
    name, note = ("mcp", "") if path == "/mcp" else ("mcp_at_the_root", ", where the platform's own server is asked")
    return operation(f"A message of MCP{note}", "Tools", anything, body=body_of(ref("JsonRpc")), name=name)


def schemas() -> dict[str, Schema]:
    return {
        "JsonRpc": object_of(
            {"jsonrpc": one_of("2.0")},
            {"id": {"oneOf": [TEXT, NUMBER]}, "method": TEXT, "params": OBJECT, "result": OBJECT, "error": OBJECT},
        ),
        "Ready": object_of({"status": one_of("ready"), "prices_are_stale": FLAG}),
    }
