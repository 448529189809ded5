"""What every operation of the document is made of."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from farebox.core.schemas import NAME, TEXT, Schema, object_of, ref

Node = Schema
"""A part of the document, as JSON has it."""

_STATUSES = {
    400: "Something in the request is wrong; the message names it.",
    401: "No key, or one that is not known.",
    402: "The balance does not cover the order's ceiling; the message says what it would cover.",
    403: "The account's plan does not include this.",
    404: "There is no such thing here.",
    405: "Another method is answered here: see `Allow`.",
    408: "The body did not arrive in time.",
    409: "The idempotency key stands for another order, or for one that is still being answered (`Retry-After`); or the"
    " order that this one repeats is.",
    410: "The answer under the idempotency key, or to the order that this one repeats, was not kept; the message names"
    " its generation.",
    413: "The body is too long, packed or unpacked.",
    415: "The body is not JSON, or is packed in another way than gzip, deflate or brotli.",
    424: "The upstream broke off after it may have accepted the order. Not to be repeated: it may have cost something.",
    429: "Too many requests, here or upstream: see `Retry-After`.",
    502: "The upstream cannot be reached, and has not heard of the request.",
    504: "The upstream could not be reached in time, and has not heard of the request.",
}

_BODY_ERRORS = (408, 413, 415)

AT_ROOT: Node = {"servers": [{"url": "/"}]}
"""Of a path that stands below the root, and under no base."""


def operation(
    summary: str,
    tag: str,
    answers: Mapping[str, Node],
    errors: Iterable[int] = (),
    *,
    parameters: Iterable[Node] = (),
    body: Node | None = None,
    name: str = "",
    words: Mapping[int, str] = MappingProxyType({}),
    refusal: str = "Error",
    **more: object,
) -> Node:
    """What one method of a path does. `errors`, beside those of a body, are answered with the schema `refusal`; `words`
    say what one of them means there, if not what it means elsewhere. `name` is its `operationId`, made of the summary's
    first words where none is given."""
    given = list(parameters)
    said = {**_STATUSES, **words}
    failed = (*errors, *(_BODY_ERRORS if body is not None else ()))
    answers = {**answers, **{str(status): answer(said[status], ref(refusal)) for status in failed}}
    return {
        "summary": summary,
        "operationId": name or summary.split(",")[0].lower().replace(" ", "_").replace("'", ""),
        "tags": [tag],
        **({"parameters": given} if given else {}),
        **({} if body is None else {"requestBody": body}),
        "responses": dict(sorted(answers.items())),
        **more,
    }


def parameter(name: str, schema: Node, description: str, where: str = "query", *, required: bool = False) -> Node:
    """`where` is `query`, `path` or `header`."""
    return {"name": name, "in": where, "required": required, "schema": schema, "description": description}


def in_path(name: str, description: str, schema: Node = NAME) -> Node:
    return parameter(name, schema, description, "path", required=True)


def body_of(schema: Node, *, required: bool = True, **more: object) -> Node:
    return {"required": required, "content": {"application/json": {"schema": schema, **more}}}


def answer(description: str, schema: Node, *, media_type: str = "application/json", **more: object) -> Node:
    return {"description": description, "content": {media_type: {"schema": schema}}, **more}


def data(description: str, schema: Node, **more: Any) -> Node:
    """An answer in the envelope of OpenRouter's API, and of Apify's."""
    return answer(description, object_of({"data": schema}), **more)


def header(description: str, schema: Node = TEXT) -> Node:
    return {"description": description, "schema": schema}
