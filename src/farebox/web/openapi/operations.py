"""What every operation of the document is made of."""

from collections.abc import Iterable, Mapping
from typing import Any

from farebox.core.schemas import NAME, TEXT, Schema, ref

Node = Schema
"""A part of the document that is no schema, as JSON has it."""

STATUSES = {
    400: "Something in the request is wrong; the message names it.",
    401: "No key, or one that is not known.",
    402: "The balance does not cover the order's ceiling; the message says what it would cover.",
    403: "The account's plan does not include this.",
    404: "There is no such thing here.",
    405: "Another method is answered here: see `Allow`.",
    408: "The body did not arrive in time.",
    409: "The idempotency key stands for another order, or for one that is still being answered (`Retry-After`).",
    410: "The answer under the idempotency key was not kept; the message names its generation.",
    413: "The body is too long, packed or unpacked.",
    415: "The body is not JSON, or is packed in another way than gzip, deflate or brotli.",
    424: "The upstream broke off after it may have accepted the order. Not to be repeated: it may have cost something.",
    429: "Too many requests, here or upstream: see `Retry-After`.",
    502: "The upstream cannot be reached, and has not heard of the request.",
    504: "The upstream could not be reached in time, and has not heard of the request.",
}

BODY_ERRORS = (408, 413, 415)
"""Of a request that has a body."""

AT_ROOT: Node = {"servers": [{"url": "/"}]}
"""Of a path that stands below the root, and under no base."""


def operation(
    summary: str,
    tag: str,
    answers: Mapping[str, Node],
    *,
    parameters: Iterable[Node] = (),
    body: Node | None = None,
    name: str = "",
    **more: object,
) -> Node:
    """What one method of a path does. `name` is its `operationId`, made of the summary's first words where none is
    given."""
    given = list(parameters)
    return {
        "summary": summary,
        "operationId": name or summary.split(",")[0].lower().replace(" ", "_").replace("'", ""),
        "tags": [tag],
        **({"parameters": given} if given else {}),
        **({} if body is None else {"requestBody": body}),
        "responses": dict(answers),
        **more,
    }


def parameter(name: str, schema: Schema, description: str, where: str = "query", *, required: bool = False) -> Node:
    """`where` is `query`, `path` or `header`."""
    return {"name": name, "in": where, "required": required, "schema": schema, "description": description}


def in_path(name: str, description: str, schema: Schema | None = None) -> Node:
    return parameter(name, NAME if schema is None else schema, description, "path", required=True)


def body_of(schema: Schema, *, required: bool = True, **more: object) -> Node:
    return {"required": required, "content": {"application/json": {"schema": schema, **more}}}


def answer(description: str, schema: Schema, *, media_type: str = "application/json", **more: Any) -> Node:
    return {"description": description, "content": {media_type: {"schema": schema}}, **more}


def refusals(statuses: Iterable[int], schema: str = "Error", words: Mapping[int, str] | None = None) -> dict[str, Node]:
    """The error answers of an operation. `words` say what a status means there, if not what it means elsewhere."""
    said = STATUSES | dict(words or {})
    return {str(status): answer(said[status], ref(schema)) for status in statuses}


def header(description: str, schema: Schema = TEXT) -> Node:
    return {"description": description, "schema": schema}
