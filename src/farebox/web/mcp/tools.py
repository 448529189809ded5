"""The tools: chat, embeddings, models with their prices, and spending. Orders are charged like any other.

Amounts of money are text, exact to the last digit.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS
from starlette.types import Receive, Scope, Send

from farebox import __version__
from farebox.batch.result_forms import ResultForm
from farebox.batch.running import CONCURRENCY, CONCURRENCY_MAX
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, invalid, unknown
from farebox.core.legible import leniently
from farebox.core.money import format_usd
from farebox.core.reading import Number, as_whole
from farebox.core.resale import with_plans_prices
from farebox.core.schemas import NAME, NUMBER, OBJECT, TEXT, WHOLE, Schema, array_of, one_of
from farebox.core.upstream import ALL_MODELS
from farebox.http.asgi import AsgiCall, Endpoint
from farebox.http.refusals import send_refusal
from farebox.platform.documents import ACTOR_ID
from farebox.platform.store import TooLong
from farebox.ports import BooksUnavailable
from farebox.web.mcp.endpoint import BODY_BYTES_MAX, CALLER, ActorTools, Agents
from farebox.whole_orders import Placed

MODELS_MAX = 200
MAX_TOKENS_MAX = 10**9

Arguments = dict[str, Any]
Called = tuple[str, dict[str, Any]]
"""What a tool answers: in words, and with a structure."""
Context = ServerRequestContext[Any, Any]

_TEXT_OR_NULL = {"type": ["string", "null"]}
_MONEY = {"type": "string", "description": "USD, exact."}
_OPTIONAL_MONEY = {**_TEXT_OR_NULL, "description": "USD, exact; null while it is not known."}
_BILL = {
    "generation_id": _TEXT_OR_NULL,
    "cost_usd": _OPTIONAL_MONEY,
    "fare_usd": _OPTIONAL_MONEY,
    "usage": {"type": ["object", "null"]},
}


_FREE = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_COSTS_MONEY = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)


def _object(optional: Iterable[str] = (), /, **properties: object) -> Schema:
    """An object with these properties and no others, all of them required but those that are named as optional."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _whole(least: int, most: int, **more: object) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, **more}


def _texts(names: str) -> dict[str, Schema]:
    return dict.fromkeys(names.split(), TEXT)


TOOLS = [
    Tool(
        name="chat",
        title="Ask a model",
        description="Ask any model, and get its answer, its usage and what it cost. Costs money.",
        input_schema=_object(
            ("system", "max_tokens", "temperature"),
            model={**NAME, "description": "An id from `list_models`, such as `openai/gpt-5-mini`."},
            prompt={**NAME, "description": "What to say."},
            system={"type": "string", "description": "Instructions that come first."},
            max_tokens={"type": "integer", "minimum": 1, "description": "Longest answer."},
            temperature={"type": "number", "minimum": 0, "maximum": 2},
        ),
        output_schema=_object(
            ("finish_reason", "answer_cap", *_BILL),
            **_texts("text model"),
            finish_reason=_TEXT_OR_NULL,
            answer_cap={"type": ["integer", "null"], "description": "Longest answer, where that was lowered."},
            **_BILL,
        ),
        annotations=_COSTS_MONEY,
    ),
    Tool(
        name="embed",
        title="Embed texts",
        description="Turn texts into vectors. Costs money.",
        input_schema=_object(
            model={**NAME, "description": "An embedding model's id."}, texts=array_of(NAME, minItems=1, maxItems=2048)
        ),
        output_schema=_object(_BILL, vectors=array_of(array_of(NUMBER)), **_BILL),
        annotations=_COSTS_MONEY,
    ),
    Tool(
        name="list_models",
        title="List models and prices",
        description="The models that may be asked, with their prices in USD a token. Free.",
        input_schema=_object(
            ("search", "limit"),
            search={**TEXT, "description": "Only those whose id or name has this in it."},
            limit=_whole(1, MODELS_MAX),
        ),
        output_schema=_object(
            models=array_of(OBJECT), total={"type": "integer", "description": "How many there are that match."}
        ),
        annotations=_FREE,
    ),
    Tool(
        name="spending",
        title="What was spent",
        description="What this account has paid in, spent, and may still spend. Free.",
        input_schema=_object(),
        output_schema=_object(
            ("available_usd",),
            **_texts("account plan"),
            **dict.fromkeys(("paid_in_usd", "spent_usd", "spent_today_usd", "spent_this_month_usd"), _MONEY),
            available_usd={**_TEXT_OR_NULL, "description": "USD, exact; null where there is no limit."},
        ),
        annotations=_FREE,
    ),
]


ACTOR_TOOL = "apify--openrouter"
ITEMS_TOOL = "get-dataset-items"
WAIT_SECONDS_MAX = 45
ITEMS_MAX = 100
ITEMS_BYTES_MAX = 4 * 2**20
"""The most bytes of items at once: they are read and written member by member, while nobody else is answered."""

ACTOR_TOOLS = [
    Tool(
        name=ACTOR_TOOL,
        title="Run the Actor",
        description="Run apify/openrouter: serve many orders at once, an item of a dataset for each. Costs money.",
        input_schema=_object(
            ("requests", "concurrency", "maxTotalChargeUsd", "results", "waitSecs"),
            requests={
                "type": ["array", "string"],
                "description": "Orders: bodies of requests, {custom_id, url, body}, or {custom_id, params} for a"
                " message; or a text with one a line.",
            },
            concurrency=_whole(1, CONCURRENCY_MAX, default=CONCURRENCY),
            maxTotalChargeUsd={"type": ["number", "string"], "description": "What the run may cost in all, in USD."},
            results={**one_of(" ".join(ResultForm)), "default": ResultForm.FAREBOX, "description": "The items' form."},
            waitSecs=_whole(0, WAIT_SECONDS_MAX, default=30),
        ),
        output_schema=_object(
            **_texts("runId actorId status summary nextStep"),
            storages=_object(**_texts("defaultDatasetId defaultKeyValueStoreId")),
        ),
        annotations=_COSTS_MONEY,
    ),
    Tool(
        name=ITEMS_TOOL,
        title="Read a run's items",
        description="The items that a run has left in its dataset. Free.",
        input_schema=_object(
            ("offset", "limit"),
            datasetId=NAME,
            offset={"type": "integer", "minimum": 0, "default": 0},
            limit=_whole(1, ITEMS_MAX, default=20),
        ),
        output_schema=_object(items=array_of(OBJECT), total=WHOLE),
        annotations=_FREE,
    ),
]
"""The tools that Apify's own MCP server has for an Actor."""


@asynccontextmanager
async def serving(agents: Agents) -> AsyncIterator[Endpoint]:
    """The MCP server, for as long as the block runs. Whoever calls it has been authenticated."""
    tools = _Tools(agents)
    server: Server[Any] = Server(
        "farebox",
        version=__version__,
        title="Farebox",
        instructions="Any model with one key. Money is spent from the key's account; `spending` says how much is left.",
        on_list_tools=tools.listed,
        on_call_tool=tools.call,
    )
    # `Host` is checked before any path, where the operator has named hosts.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    manager = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, security_settings=security, max_request_body_size=BODY_BYTES_MAX
    )

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        version = next((value.decode("latin-1") for name, value in scope["headers"] if name == VERSION), None)
        if version is not None and version not in KNOWN_PROTOCOL_VERSIONS:
            await _refuse_version(version[:40], scope, receive, send)
        else:
            await manager.handle_request(scope, receive, send)

    try:
        async with manager.run():
            yield endpoint
    finally:
        await tools.close()


VERSION = b"mcp-protocol-version"


async def _refuse_version(version: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse here: the SDK takes an unknown version for a newer one, and then misses members in the body."""
    spoken = ", ".join(KNOWN_PROTOCOL_VERSIONS)
    refusal = invalid(f"MCP-Protocol-Version: {version!r} is not spoken here; {spoken} are")
    error = {
        "code": UNSUPPORTED_PROTOCOL_VERSION,
        "message": refusal.message,
        "data": {"supported": KNOWN_PROTOCOL_VERSIONS, "requested": version},
    }
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})
    await send_refusal(AsgiCall(scope, receive, send), refusal, body)


class _Tools:
    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._orders: set[asyncio.Task[Placed]] = set()
        self._calls: dict[str, Callable[[Caller, Arguments], Awaitable[Called]]] = {
            "chat": self._chat,
            "embed": self._embed,
            "list_models": self._list_models,
            "spending": self._spending,
        }
        self._tools = list(TOOLS)
        if agents.actor is not None:
            actor = _Actor(agents.actor)
            self._calls |= {ACTOR_TOOL: actor.run, ITEMS_TOOL: actor.items}
            self._tools += ACTOR_TOOLS

    async def close(self) -> None:
        """Wait for the orders on their way: they are served to their end, though their callers have gone."""
        if self._orders:
            await asyncio.wait(self._orders)

    async def listed(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def call(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Call a tool. A refused order is a result of the tool, not an error of the protocol: the model that called may
        mend it."""
        make_call = self._calls.get(params.name)
        try:
            if make_call is None:
                raise invalid(f"there is no tool `{params.name[:100]}`; there are {', '.join(self._calls)}")
            text, structured = await make_call(_caller(context), params.arguments or {})
        except Refusal as refusal:
            return CallToolResult(content=[TextContent(text=refusal.message)], is_error=True)
        except BooksUnavailable as error:
            return CallToolResult(content=[TextContent(text=f"Try again shortly: {error}")], is_error=True)
        return CallToolResult(content=[TextContent(text=text)], structured_content=structured)

    async def _place(self, caller: Caller, path: str, body: dict[str, object]) -> Placed:
        order = asyncio.create_task(self._agents.orders.place(caller, path, msgspec.json.encode(body)))
        self._orders.add(order)
        order.add_done_callback(self._orders.discard)
        return await asyncio.shield(order)

    async def _chat(self, caller: Caller, asked: Arguments) -> Called:
        messages = [{"role": "user", "content": _text(asked, "prompt")}]
        if asked.get("system"):
            messages.insert(0, {"role": "system", "content": _text(asked, "system")})
        body: dict[str, object] = {"model": _text(asked, "model"), "messages": messages}
        if asked.get("max_tokens") is not None:
            body["max_tokens"] = _number(asked, "max_tokens", 0, 1, MAX_TOKENS_MAX)
        if asked.get("temperature") is not None:
            body["temperature"] = asked["temperature"]
        placed = await self._place(caller, "/chat/completions", body)
        answer: Any = leniently(msgspec.json.decode, placed.body)
        choice = (answer.get("choices") or [{}])[0]
        text = (choice.get("message") or {}).get("content") or ""
        said = {"text": text, "model": answer.get("model") or "", "finish_reason": choice.get("finish_reason")}
        return text, {**said, "answer_cap": placed.answer_cap, **_bill(placed, answer)}

    async def _embed(self, caller: Caller, asked: Arguments) -> Called:
        texts = asked.get("texts")
        if not isinstance(texts, list) or not texts:
            raise invalid("texts: a list of texts")
        body: dict[str, object] = {"model": _text(asked, "model"), "input": texts, "encoding_format": "float"}
        placed = await self._place(caller, "/embeddings", body)
        answer: Any = leniently(msgspec.json.decode, placed.body)
        vectors = [each["embedding"] for each in answer["data"]]
        return f"{len(vectors)} vectors of {len(vectors[0])} numbers", {"vectors": vectors, **_bill(placed, answer)}

    async def _list_models(self, caller: Caller, asked: Arguments) -> Called:
        limit = _number(asked, "limit", MODELS_MAX, 1, MODELS_MAX)
        search = str(asked.get("search") or "").lower()
        page, _ = await self._agents.catalog.page(ALL_MODELS)
        plan = caller.plan
        entries = [model.entry for model in page.models if plan.allows(*self._agents.catalog.names(model.id))]
        listed = [msgspec.json.decode(each if plan.shows_cost else with_plans_prices(each, plan)) for each in entries]
        found = [
            {
                "id": model["id"],
                "name": model.get("name"),
                "context_length": model.get("context_length"),
                "prompt_usd": (model.get("pricing") or {}).get("prompt"),
                "answer_usd": (model.get("pricing") or {}).get("completion"),
            }
            for model in listed
            if search in f"{model['id']} {model.get('name')}".lower()
        ]
        lines = [f"{each['id']}: ${each['prompt_usd']} / ${each['answer_usd']} a token" for each in found[:limit]]
        return "\n".join(lines) or "No model matches.", {"models": found[:limit], "total": len(found)}

    async def _spending(self, caller: Caller, asked: Arguments) -> Called:
        balance = await self._agents.accounts.balance(caller.account)
        spent = await self._agents.accounts.spending(caller.account, None)
        available = balance.available_nanos
        spending = {
            "account": caller.account.name,
            "plan": caller.plan.name,
            "paid_in_usd": format_usd(balance.credits_nanos),
            "spent_usd": format_usd(balance.debits_nanos),
            "spent_today_usd": format_usd(spent.day),
            "spent_this_month_usd": format_usd(spent.month),
            "available_usd": None if available is None else format_usd(max(0, available)),
        }
        left = "without a limit" if available is None else f"${spending['available_usd']} is left"
        return f"Spent ${spending['spent_usd']} of ${spending['paid_in_usd']} paid in; {left}.", spending


class _Actor:
    """The tools of the Actor: run it, as on Apify's platform, and read its items."""

    def __init__(self, tools: ActorTools) -> None:
        self._runner = tools.runner
        self._runs = tools.runs

    async def run(self, caller: Caller, asked: Arguments) -> Called:
        given = {name: value for name, value in asked.items() if name != "waitSecs"}
        wait_seconds = _number(asked, "waitSecs", 30, 0, WAIT_SECONDS_MAX)
        run = await self._runner.begin(caller, msgspec.json.encode(given), origin="MCP")
        run = await self._runner.finished(run, wait_seconds)
        storages = {"defaultDatasetId": run.dataset_id, "defaultKeyValueStoreId": run.store_id}
        following = f"Call {ITEMS_TOOL} with datasetId {run.dataset_id}"
        shown = {
            "runId": run.id,
            "actorId": ACTOR_ID,
            "status": run.status,
            "storages": storages,
            "summary": run.status_message or "The run has begun.",
            "nextStep": following if run.is_finished else f"{following}, once more when the run has gone on.",
        }
        return f"{run.status}: {shown['summary']} {shown['nextStep']}", shown

    async def items(self, caller: Caller, asked: Arguments) -> Called:
        dataset_id = _text(asked, "datasetId")
        run = await self._runs.run(caller.account.id, dataset_id)
        if run is None:
            raise unknown(f"datasetId: there is no dataset {dataset_id[:100]!r}")
        offset, limit = _number(asked, "offset", 0, 0, 10**9), _number(asked, "limit", 20, 1, ITEMS_MAX)
        try:
            found, total = await self._runs.items(run.dataset_id, offset, limit, desc=False)
        except TooLong as error:
            raise invalid(f"limit: ask for fewer items at once: these are {error}") from error
        if (size := sum(map(len, found))) > ITEMS_BYTES_MAX:
            raise invalid(f"limit: ask for fewer items at once: these have {size} bytes, of {ITEMS_BYTES_MAX} at most")
        items = [leniently(msgspec.json.decode, item) for item in found]
        return f"{len(items)} of {total} items", {"items": items, "total": total}


def _number(asked: Arguments, name: str, default: int, least: int, most: int) -> int:
    given = asked.get(name, default)
    value = as_whole(given) if isinstance(given, Number) and not isinstance(given, bool) else None
    if value is None or not least <= value <= most:
        raise invalid(f"{name}: a whole number from {least} to {most}")
    return value


def _caller(context: Context) -> Caller:
    """Who called, as `Agents.endpoint` found out."""
    assert context.request is not None
    found = context.request.scope[CALLER]
    assert isinstance(found, Caller)
    return found


def _text(asked: Arguments, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name}: a text")
    return value


def _bill(placed: Placed, answer: dict[str, Any]) -> dict[str, Any]:
    fare = placed.fare
    return {
        "generation_id": placed.generation_id,
        "cost_usd": None if fare is None else f"{fare.cost:f}",
        "fare_usd": None if fare is None else format_usd(fare.nanos),
        "usage": answer.get("usage"),
    }
