"""A batch's results in the output forms of others, for programs that read those.

Sources: OpenAI's description of a batch's output (`BatchRequestOutput`) and Anthropic's
(`MessageBatchIndividualResponse`). What else Farebox knows stands in members of its own, which their readers ignore.
"""

from enum import StrEnum

import msgspec
from msgspec import Raw, Struct
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


class _Response(Struct):
    status_code: int
    request_id: str
    body: Raw


class _Succeeded(Struct, tag="succeeded"):
    message: Raw


class _Errored(Struct, tag="errored"):
    error: Raw


class _Own(Struct, kw_only=True):
    """Farebox's own members. A batch that is begun again reads from them which orders are done."""

    number: int
    status: int
    generation_id: str | None
    cost_usd: str | None
    fare_events: int | None
    fare_usd: str | None
    answer_cap: int | None


class _OpenAi(_Own, kw_only=True):
    id: str
    custom_id: str
    response: _Response
    error: None = None


class _Anthropic(_Own, kw_only=True):
    custom_id: str
    result: _Succeeded | _Errored


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
    own = {name: getattr(result, name) for name in _Own.__struct_fields__}
    if form is ResultForm.OPENAI:
        body = result.answer or _error_body(result, is_anthropics=result.url == f"/v1{MESSAGES_PATH}")
        response = _Response(result.status, result.generation_id or "", body)
        return msgspec.json.encode(
            _OpenAi(id=f"batch_req_{result.number}", custom_id=custom_id, response=response, **own)
        )
    outcome = _Succeeded(result.answer) if result.answer else _Errored(_error_body(result, is_anthropics=True))
    return msgspec.json.encode(_Anthropic(custom_id=custom_id, result=outcome, **own))


def _error_body(result: BatchResult, *, is_anthropics: bool) -> Raw:
    """The refusal's body, as its endpoint would have sent it."""
    body = msgspec.json.encode({"error": result.error})
    return Raw((typed_refusal(result.status, body) if is_anthropics else None) or body)
