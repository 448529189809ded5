"""A batch's results in the output forms of others, for programs that read those.

Sources: OpenAI's description of a batch's output (`BatchRequestOutput`) and Anthropic's
(`MessageBatchIndividualResponse`). What else Farebox knows stands in members of its own, which their readers ignore.
"""

from enum import StrEnum

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from farebox.batch.entries import BatchOrder, BatchResult
from farebox.core.errors import invalid
from farebox.core.formats.messages_errors import typed_refusal

MESSAGES_PATH = "/messages"


class ResultForm(StrEnum):
    """How results are written."""

    FAREBOX = "farebox"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


_OWN = ("number", "status", "generation_id", "cost_usd", "fare_events", "fare_usd", "answer_cap")
"""Farebox's own members. A batch that is begun again reads from them which orders are done."""


def fitted(order: BatchOrder, form: ResultForm) -> BatchOrder:
    """The order; refused where the form has no place for its answer."""
    if form is ResultForm.ANTHROPIC and order.refusal is None and order.path != MESSAGES_PATH:
        why = f"results: Anthropic's form holds messages alone, and this order is for {order.url}"
        return replace(order, refusal=invalid(f"{why}; give `params`, or the url /v1{MESSAGES_PATH}"))
    return order


def written(result: BatchResult, form: ResultForm) -> bytes:
    """A result as a line of JSON. The other forms need an id; an order without one is called `order-NUMBER`."""
    if form is ResultForm.FAREBOX:
        return msgspec.json.encode(result)
    custom_id = f"order-{result.number}" if result.custom_id is None else result.custom_id
    members = {name: getattr(result, name) for name in _OWN} | {"custom_id": custom_id}
    if form is ResultForm.OPENAI:
        body = result.answer or _error_body(result, is_anthropics=result.url == f"/v1{MESSAGES_PATH}")
        response = {"status_code": result.status, "request_id": result.generation_id or "", "body": body}
        members |= {"id": f"batch_req_{result.number}", "response": response, "error": None}
    elif result.answer:
        members["result"] = {"type": "succeeded", "message": result.answer}
    else:
        members["result"] = {"type": "errored", "error": _error_body(result, is_anthropics=True)}
    return msgspec.json.encode(members)


def _error_body(result: BatchResult, *, is_anthropics: bool) -> Raw:
    """The refusal's body, as its endpoint would have sent it."""
    body = msgspec.json.encode({"error": result.error})
    return Raw((typed_refusal(result.status, body) if is_anthropics else None) or body)
