"""Settings: the environment first, then `farebox.toml`, then the defaults here.

`docs/reference/settings.md` is generated from this file.
"""

import builtins
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field, structs

from farebox.core.caching import SECONDS_MAX
from farebox.core.declared import (
    KIND_FACTS,
    AtHangUp,
    CappedBy,
    Declared,
    KindFacts,
    Timeouts,
    facts_of,
    format_paths,
    names_of,
    usual_cap,
)
from farebox.core.formats.describing import OutputModality
from farebox.core.plans import BUILT_IN, Plan, event_price_nanos
from farebox.core.pricing import ASSUMED, PRICE_MAX_USD, UnitPrices
from farebox.core.repeats import Joins
from farebox.core.routing import Policy
from farebox.core.traits import PARAMETERS, USUAL, InputModality, Quantization, Traits
from farebox.core.written import Count, Positive, Secret, Table, Wrong, WrongTable, read
from farebox.crash import CRASH_VARIABLE

OPENROUTER_KIND = "openrouter"
OPENROUTER_URL = str(facts_of(OPENROUTER_KIND).base_url)
OPENROUTER_KEY_VARIABLE = str(facts_of(OPENROUTER_KIND).key_variable)

CONFIG_FILE_VARIABLE = "FAREBOX_CONFIG"
CONFIG_FILE = "farebox.toml"

PREFIX = "FAREBOX_"
OTHER_VARIABLES = (CONFIG_FILE_VARIABLE, CRASH_VARIABLE, "FAREBOX_SIMULATOR_URL", "FAREBOX_KEY")
"""What may stand in the environment beside the settings: for this program, or for the clients that its pages show."""

_SERVICE = re.compile(r"FAREBOX_SERVICE_(HOST|PORT(_\w+)?)|FAREBOX_PORT_\d+_(TCP|UDP)(_\w+)?")
"""What Kubernetes tells every container about a service that is called `farebox`."""

_UPSTREAM_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*?#]+")
"""An origin (RFC 6454, 6.2). Browser extensions have schemes of their own."""


class BadSettings(Exception):  # noqa: N818 - the word of the house
    """The message has a line for each wrong setting: its name, what is wrong, and what would be right."""


def _whole_nanos(multiplier: Decimal) -> Decimal:
    event_price_nanos(multiplier)
    return multiplier


class PlanSettings(Table, kw_only=True, frozen=True):
    """A plan as `farebox.toml` declares it, under `[plans.NAME]`."""

    CHECKS: ClassVar = {"multiplier": _whole_nanos}

    multiplier: Decimal = Decimal(1)
    """What an event costs, as a multiple of $0.00001."""

    answer_tokens_max: Count | None = None
    """Longest answer, in tokens."""

    models: list[str] | None = None
    """Shell patterns over model ids; all where absent."""

    shows: Literal["cost", "fare"] = "cost"
    """What its callers are told: the upstream's costs and prices beside the fare (`cost`), or the fare and the plan's
    own prices alone (`fare`)."""

    def plan(self, name: str) -> Plan:
        models = None if self.models is None else tuple(self.models)
        return Plan(name, event_price_nanos(self.multiplier), self.answer_tokens_max, models, shows=self.shows)


class GuardSettings(Table, kw_only=True, frozen=True):
    """A guard as `farebox.toml` declares it, under `[guards.NAME]`."""

    kind: str | None = None
    """`patterns`, `redaction`, or what an installed package brings (an entry point in the group `farebox.guards`);
    the guard's own name where absent."""

    seconds: Annotated[float, Meta(gt=0, le=30)] = 1.0
    """How long it may take over an order."""

    on_failure: Literal["refuse", "pass"] = "refuse"
    """What becomes of an order over which it fails, or takes longer."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Its own settings, as a table."""


def _are_parameters(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name != USUAL and name not in PARAMETERS:
            nearest = get_close_matches(name, PARAMETERS, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(PARAMETERS)}"
            raise ValueError(f"OpenRouter has no parameter {name!r}{hint}")
    return names


def _are_some(names: list[str] | None) -> list[str] | None:
    if names == []:
        raise ValueError("name at least one modality")
    return names


class TraitSettings(Table, kw_only=True, frozen=True):
    """What may be declared of all models of an upstream, and of some of them, under `[upstreams.NAME.per_model.MODEL]`:
    None is not declared."""

    CHECKS: ClassVar = {
        "supported_parameters": _are_parameters,
        "input_modalities": _are_some,
        "output_modalities": _are_some,
    }

    context_tokens: Count | None = None
    """How long prompt and answer together may be. Unset: what it lists."""

    answer_tokens_max: Count | None = None
    """The longest answer that it gives; orders whose cap is higher go elsewhere. Unset: what it lists, and any cap
    goes there."""

    supported_parameters: list[str] | None = None
    """Parameters of orders that it heeds, by OpenRouter's names; `usual` stands for those that its formats can say.
    Unset: those."""

    quantization: Quantization | None = None
    """How its weights are stored: `int4`, `int8`, `fp4`, `fp6`, `fp8`, `fp16`, `bf16`, ..."""

    collects_data: bool | None = None
    """Whether it keeps for longer, or trains on, what it is sent."""

    zdr: bool | None = None
    """Whether it keeps nothing at all of what it is sent."""

    distillable: bool | None = None
    """Whether its answers may train other models."""

    input_modalities: list[InputModality] | None = None
    """What an order may bring along: `text`, `image`, `file`, `audio`, `video`. Unset: anything goes there, and
    lists say `text`."""

    output_modalities: list[OutputModality] | None = None
    """What it answers with: `text`, `image`, `audio`, `embeddings`, `rerank`, ... Unset: anything is asked of it,
    and lists say `text`, or what its formats answer with where those are `embeddings` or `rerank`."""

    def __post_init__(self) -> None:
        if self.zdr and self.collects_data:
            raise ValueError("zdr: what keeps nothing collects no data; set collects_data to false, or leave it out")

    def traits(self) -> Traits:
        return Traits(
            supported_parameters=None if self.supported_parameters is None else frozenset(self.supported_parameters),
            quantization=self.quantization,
            collects_data=self.collects_data,
            zdr=self.zdr,
            distillable=self.distillable,
            context_tokens=self.context_tokens,
            answer_tokens_max=self.answer_tokens_max,
            input_modalities=None if self.input_modalities is None else tuple(self.input_modalities),
            output_modalities=None if self.output_modalities is None else tuple(self.output_modalities),
        )


def _is_base(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write a URL like https://api.example/v1")
    if parts.username is not None:
        raise ValueError("write the key into an environment variable, and name that in key_variable")
    return url.rstrip("/")


def _are_formats(names: list[str] | None) -> list[str] | None:
    known = format_paths()
    for name in names or ():
        if name not in known:
            raise ValueError(f"nobody speaks the format {name!r}; there are {', '.join(known)}")
    if names == []:
        raise ValueError("name at least one format")
    return names


def _stars_in_both(names: dict[str, str]) -> dict[str, str]:
    for ours, own in names.items():
        if ours.count("*") > 1 or ours.count("*") != own.count("*") or not ours or not own:
            raise ValueError(f"write one `*` or none into both names; {ours!r} = {own!r} cannot be followed")
    return names


class UpstreamSettings(TraitSettings, kw_only=True, frozen=True):
    """An upstream as `farebox.toml` declares it, under `[upstreams.NAME]`."""

    CHECKS: ClassVar = {**TraitSettings.CHECKS, "base_url": _is_base, "formats": _are_formats, "names": _stars_in_both}

    kind: str
    """What it speaks: `openrouter`, `openai` or `anthropic`; others can be added."""

    base_url: str | None = None
    """Its base, up to and including `/v1` (of `openrouter`: `/api/v1`; of `anthropic`: what stands before that).
    Unset: the kind's own host."""

    key_variable: str | None = None
    """The environment variable with the key for it. Unset: the kind's usual one (`OPENROUTER_API_KEY`,
    `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`) where `base_url` is unset, too; else it is asked without a key."""

    models: list[str] | None = None
    """What it serves: ids by which callers order, or shell patterns over them. Unset: all that it lists."""

    names: dict[str, str] = field(default_factory=dict)
    """Ids by which callers order, and what it calls these models itself; a `*` in both stands for the same:
    `{"openai/*" = "*"}`."""

    formats: list[str] | None = None
    """The formats that it speaks: `chat`, `messages`, `responses`, `embeddings`, `rerank`, `images`,
    `audio/speech`, `audio/transcriptions`. Unset: what the kind's own host speaks. Many local servers speak only
    `chat`."""

    connect_seconds: Positive | None = None
    """As the setting, for this upstream."""

    first_byte_seconds: Positive | None = None
    """As the setting, for this upstream."""

    no_data_seconds: Positive | None = None
    """As the setting, for this upstream."""

    at_hang_up: AtHangUp | None = None
    """A stream whose caller hung up: `cancel`, where its cost can be asked for afterwards or is nothing; `drain`.
    Unset: as `hang_up` says of `openrouter`, `cancel` where it is free, else `drain`."""

    orders_max: Count | None = None
    """Orders that one process sends to it at once; others get 429. Unset: any number."""

    order: Annotated[int, Meta(ge=0)] = 0
    """Of several that serve a model, the lowest order is first."""

    weight: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Its share among those of the same order."""

    prices: Literal["file", "openrouter", "free"] | None = None
    """What its orders cost, where its answers do not say it (`openai` and `anthropic`, which must say which): by
    the operator's `file`, by OpenRouter's public list for the same id (`openrouter`), or nothing (`free`)."""

    capped_by: CappedBy | None = None
    """For `openai` alone: the member that caps an answer in its chat completions, `max_tokens` or
    `max_completion_tokens`; an order with the other gets this one. Unset: `max_completion_tokens` at OpenAI's own
    addresses and Azure's; elsewhere a caller's own goes along as it came, and where Farebox itself sets one it is
    `max_tokens`."""

    per_model: dict[str, TraitSettings] = field(default_factory=dict)
    """For some of its models what may be declared of all (below): by ids under which callers order, or shell
    patterns over them. An id counts before patterns, an earlier pattern before a later one, either before what is
    said of all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KIND_FACTS:
            return  # one that was added, or none
        facts = facts_of(self.kind)
        if facts.tells_cost and self.prices is not None:
            raise ValueError(f"prices: not for the kind `{self.kind}`, whose answers say what they cost")
        if not facts.tells_cost and self.prices is None:
            raise ValueError(
                f'prices: not set, and the kind `{self.kind}` tells none; write "file", "openrouter" or "free"'
            )
        wrong = [name for name in self.formats or () if not _can_speak(facts, name)]
        if wrong:
            raise ValueError(
                f"formats: the kind `{self.kind}` cannot speak {wrong[0]}, only {', '.join(names_of(facts.can_speak))}"
            )
        if self.capped_by is not None and self.kind != "openai":
            raise ValueError(f"capped_by: not for the kind `{self.kind}`, whose orders have one name for it")
        if self.at_hang_up == "cancel" and not facts.has_generations and self.prices != "free":
            raise ValueError(
                'at_hang_up: "cancel" would leave the cost unknown: this kind cannot be asked for it; write "drain"'
            )

    def declared(self, name: str, settings: "Settings") -> Declared:
        facts = facts_of(self.kind)
        cancels = settings.hang_up if facts.has_generations else "cancel" if self.prices == "free" else "drain"
        is_own_host = self.base_url is None
        formats = facts.formats if self.formats is None else frozenset(format_paths()[each] for each in self.formats)
        base_url = self.base_url or facts.base_url or ""
        return Declared(
            name,
            self.kind,
            base_url,
            Timeouts(
                self.connect_seconds or settings.connect_seconds,
                self.first_byte_seconds or settings.first_byte_seconds,
                self.no_data_seconds or settings.no_data_seconds,
            ),
            key_variable=self.key_variable or (facts.key_variable if is_own_host else None),
            models=None if self.models is None else tuple(self.models),
            names=tuple(self.names.items()),
            formats=formats,
            at_hang_up=self.at_hang_up or cancels,
            orders_max=self.orders_max,
            order=self.order,
            weight=self.weight,
            prices=self.prices or "itself",
            capped_by=self.capped_by or usual_cap(self.kind, base_url),
            traits=self.traits(),
            per_model=tuple((model, each.traits()) for model, each in self.per_model.items()),
        )


def _can_speak(facts: KindFacts, name: str) -> bool:
    return facts.can_speak is None or format_paths()[name] in facts.can_speak


def _is_price(usd: Decimal) -> Decimal:
    if not 0 < usd <= PRICE_MAX_USD:
        raise ValueError(f"write a price above 0 and up to {PRICE_MAX_USD}")
    return usd


def _are_named(upstreams: dict[str, UpstreamSettings]) -> dict[str, UpstreamSettings]:
    if wrong := [name for name in upstreams if not _UPSTREAM_NAME.fullmatch(name)]:
        raise ValueError(f"name upstreams in lower case, digits, `-` and `_`; {wrong[0]!r} is no such name")
    return upstreams


def _are_origins(origins: list[str]) -> list[str]:
    if wrong := [each for each in origins if each != "*" and not _ORIGIN.fullmatch(each)]:
        raise ValueError(f"write origins like https://app.example, without a path; {wrong[0]!r} is none")
    return origins


def _known_database(url: str) -> str:
    if url.startswith(("postgresql://", "postgres://")):
        return url
    if not url.startswith("sqlite:///") or len(url) <= len("sqlite:///"):
        raise ValueError(
            "write sqlite:///PATH (three slashes: a path from here; four: from the root), or"
            " postgresql://USER:PASSWORD@HOST/NAME"
        )
    return url


def _name_and_value(header: str | None) -> str | None:
    if header is not None and not all(part.strip() for part in header.partition(":")):
        raise ValueError("write a header's name and value, like `x-caller-type: APIFY_ACTOR`")
    return header


def _http_url(url: str | None) -> str | None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError("write a URL like https://openrouter.ai/api/v1")
    return url or None


class Settings(Table, kw_only=True, frozen=True):
    """Each is set by `FAREBOX_` and its name in capitals in the environment, or by its name in `farebox.toml`.

    `tools/reference.py` makes docs/reference/settings.md of this; `make lint` fails where the two differ.
    """

    CHECKS: ClassVar = {
        "upstreams": _are_named,
        "allowed_origins": _are_origins,
        "database_url": _known_database,
        **{f"assumed_{name}_usd": _is_price for name in UnitPrices.__struct_fields__},
        "caller_header": _name_and_value,
        "upstream_url": _http_url,
        "public_url": _http_url,
    }

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 for any free one."""

    allowed_hosts: list[str] = field(default_factory=list)
    """Names under which callers may ask, as `Host` says them, without ports, separated by commas; any where unset,
    but for `/mcp` on a loopback address."""

    allowed_origins: list[str] = field(default_factory=list)
    """Web pages that may call from a browser: origins such as `https://app.example`, separated by commas, or `*`
    for all; none where unset. Not for what managers and the platform's clients call."""

    http: Literal["direct", "plain"] = "direct"
    """How orders reach the relay: `direct`, from their connection; `plain`, through ASGI as all else, which costs
    more and does the same, to rule out the one or the other when something is wrong."""

    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that serve, all on one database."""

    database_url: str = "sqlite:///data/farebox.db"
    """The books: `sqlite:///PATH`; `postgresql://...` (or `postgres://...`) for several machines."""

    wal_warn_bytes: Annotated[int, Meta(ge=2**20)] = 256 * 2**20
    """Size of SQLite's write-ahead log from which a warning names who keeps it from being made smaller. From a
    quarter of it on, it is copied into the books apart from orders."""

    spool: str = "data/spool"
    """Folder on this machine where settlements wait while the books cannot take them."""

    public_url: str | None = None
    """Where callers reach this gateway, told by Actor runs; unset: the address it listens on."""

    upstream_url: str | None = None
    """Base of an OpenRouter-compatible API, up to and including its `/api/v1`. Unset: OpenRouter where
    `OPENROUTER_API_KEY` is set, the built-in simulator where it is not."""

    upstream_kind: str = OPENROUTER_KIND
    """What the upstream speaks. `openrouter`, OpenRouter's API, is built in; others can be added."""

    ca_file: str | None = None
    """A file of PEM certificates: authorities to believe beside the system's, such as those of a company's proxy.
    (`SSL_CERT_FILE` names a file in the place of the system's.)"""

    connect_seconds: Positive = 10
    """Deadline for a connection to the upstream."""

    first_byte_seconds: Positive = 300
    """Deadline from the order sent to an answer's head."""

    no_data_seconds: Positive = 120
    """Deadline between two pieces of an answer."""

    stream_silence_seconds: Annotated[float, Meta(ge=0)] = 15
    """How long a stream may be silent after its order was sent: after that its caller gets three comments (in
    messages: `ping` events), a second apart, and again whenever it was silent so long. Proxies cut streams that are
    silent, and some tell of a caller's hang-up only when something is sent, or sent again. From the first on, what
    goes wrong is told in a stream of status 200. 0: none are sent."""

    routing: Policy = "order"
    """Which of several upstreams that serve a model is tried first, where an order does not say it: `order`, by
    their `order`, those of one `order` by chance, each as often as its `weight` says; `weights`, all by chance;
    `cheapest`, at the list's prices."""

    cache_bytes_max: Annotated[int, Meta(ge=0)] = 256 * 2**20
    """How much is kept in the books of answers for the same orders again, for orders and keys that ask for it; 0:
    nothing."""

    cache_seconds_max: Annotated[int, Meta(ge=1, le=SECONDS_MAX)] = 86_400
    """The longest that such an answer is kept, whatever is asked."""

    stored_seconds: Annotated[int, Meta(ge=0, le=SECONDS_MAX * 120)] = 30 * 86_400
    """How long an answer of `/responses` is kept for its account, with its input; 0: none is, and no answer can be
    continued by its id."""

    stored_by_default: bool = True
    """Whether it is kept where the order does not say so (`store`), as at OpenAI; else only where it does."""

    stored_answer_bytes_max: Count = 8 * 2**20
    """The longest answer that is kept, together with its own input."""

    stored_account_bytes_max: Annotated[int, Meta(ge=0)] = 256 * 2**20
    """How much is kept of one account's answers."""

    background_orders_max: Annotated[int, Meta(ge=0)] = 100
    """Orders of `/responses` that run in the background (`background: true`) at once, for each process, and half of
    them of one account; 0: none does."""

    join_repeats: Joins = "marked"
    """Which orders without an idempotency key wait for the answer of the same order that was placed in the last 15
    minutes, and pay nothing more: `marked`, those that say that they repeat it (`X-Stainless-Retry-Count`);
    `unmarked`, also those that do not say so, where nobody was there to take that answer; `off`, none. Not for
    streams."""

    silence_seconds: Annotated[float, Meta(ge=0)] = 0
    """The same for an answer that is not streamed, whose caller gets a blank line. For upstreams that send none
    themselves, behind proxies that give up on who is silent; 15 suits most. From the first on, what goes wrong is
    told in an answer of status 200, which most clients take for one. 0: none are sent."""

    connections_max: Count = 10_000
    """Connections that one process keeps open at once."""

    keep_alive_seconds: Count = 75
    """Seconds that a caller's connection may be idle, as `Keep-Alive` tells it: more than the pools of callers and
    proxies keep theirs, or orders meet closing connections (Google's balancer wants over 600)."""

    socket_seconds: Annotated[float, Meta(ge=0)] = 3600
    """How long a WebSocket is open at most, on which turns in responses are ordered; 0: none is spoken."""

    socket_memory_bytes: Annotated[int, Meta(ge=0)] = 256 * 1024 * 1024
    """How much all WebSockets of one process remember together of their last turns, which the next continues. Where
    there is no room, a turn has to bring its earlier items along."""

    orders_max: Count = 2000
    """Orders that one process serves at once."""

    account_orders_max: Count = 500
    """The same, of one account."""

    no_event_seconds: Positive = 600
    """Deadline between two events of a stream that are more than comments, and for a whole answer to be more than
    blank lines."""

    hang_up: Literal["cancel", "drain"] = "cancel"
    """A stream whose caller hung up: `cancel` stops it and asks for its cost afterwards, `drain` reads it to its
    end, for upstreams that have no `/generation`. Whole answers are always read to their end."""

    drain_seconds: Positive = 300
    """How long a stream is read on without its caller."""

    drains_max: Count = 64
    """Streams that one process reads on without their callers; more are cancelled."""

    body_bytes_max: Annotated[int, Meta(ge=1024)] = 32 * 1024 * 1024
    """Longest request body."""

    body_seconds: Positive = 60
    """Deadline for a request body to arrive."""

    grace_seconds: Annotated[int, Meta(ge=0)] = 30
    """How long running answers may take to end after a SIGTERM; a second one ends them."""

    order_log: bool = True
    """Log a line for each order, as JSON on standard error."""

    end_users: Literal["digest", "plain", "off"] = "digest"
    """How the end users that orders name are kept in the books: as a digest that nobody can guess, as they are named,
    or not at all."""

    end_user_secret: Secret | None = None
    """The key of these digests, the same on every node; unset, one that stands in the books. With another key each end
    user is another one."""

    metadata_tags: list[str] = field(default_factory=list)
    """The members of an order's `metadata` that are kept as its tags, beside those of `X-Farebox-Tags`, such as
    `team`. Choose those of which there are few values."""

    alerts_seconds: Positive = 60
    """How often is looked for what [alerts](../alerts.md) tell of."""

    alerts_private: bool = False
    """Whether alerts may be sent to addresses within this machine's own network, and without TLS."""

    console: bool = True
    """Whether there are pages for people at `/console`. As an Actor there are none."""

    metrics_token: Secret | None = None
    """What `GET /metrics` wants as `Authorization: Bearer`; unset, it answers this machine alone."""

    prices_refresh_seconds: Positive = 300
    """How often the price list is asked for anew."""

    prices_max_age_seconds: Positive = 86_400
    """How long an old price list serves while the upstream gives no new one."""

    prices_file: str | None = None
    """A file of prices of upstreams that tell usage and no cost; docs/prices.md says what stands in it. It is read
    again when it changes."""

    assumed_picture_usd: Decimal = ASSUMED.picture
    """USD that are set aside for a picture that is made, where the price list has no price for it. What is charged
    is what the upstream says."""

    assumed_character_usd: Decimal = ASSUMED.character
    """USD that are set aside for a character that is spoken (a byte of its UTF-8), where the price list has no
    price for it. What is charged is what the upstream says."""

    assumed_audio_second_usd: Decimal = ASSUMED.audio_second
    """USD that are set aside for a second of audio that is written down, where the price list has no price for it.
    What is charged is what the upstream says."""

    assumed_video_second_usd: Decimal = ASSUMED.video_second
    """USD that are set aside for a second of video that is made, where the price list has no price for it. What is
    charged is what the upstream says."""

    assumed_search_unit_usd: Decimal = ASSUMED.search_unit
    """USD that are set aside for a search unit of a reranker (a hundred documents), where the price list has no
    price for it. What is charged is what the upstream says."""

    reconcile_seconds: Annotated[float, Meta(ge=0)] = 86_400
    """How long the upstream is asked what an order cost that ended without saying so; 0: not at all."""

    job_seconds: Annotated[float, Meta(ge=0)] = 7 * 86_400
    """How long the upstream is asked how a job (a video) stands that has not ended, nor been charged; after that an
    operator decides. Where `reconcile_seconds` is 0, nothing is asked."""

    tenancy: Literal["single", "multi"] = "single"
    """As an Actor: whose run it is. `single`: each caller's own, who is charged with the run. `multi`: the Actor's
    developer's, shared by all callers, each charged by the platform's id of its request."""

    callers: Literal["any", "actors"] = "any"
    """As an Actor: who may order. `actors`: only other Actors, others get 403."""

    caller_header: str | None = None
    """As an Actor with `callers` = `actors`: the header by which the platform marks them, and its value, like
    `x-caller-type: APIFY_ACTOR`; unset, an Actor is known by its token, which is that of a run."""

    seller_name: str | None = None
    """Who sells, as invoices and FOCUS files say it."""

    seller_address: str | None = None
    """The seller's address on invoices; where it has several lines, they stay apart."""

    seller_tax: str | None = None
    """A line about tax for invoices, such as `VAT ID ATU00000000, reverse charge`."""

    guards: dict[str, GuardSettings] = field(default_factory=dict)
    """What looks at orders before they are sent, and at answers."""

    plans: dict[str, PlanSettings] = field(default_factory=dict)
    """Plans beside `paying` and `free`."""

    upstreams: dict[str, UpstreamSettings] = field(default_factory=dict)
    """The upstreams, where there is more to say than `upstream_url` does."""

    @property
    def assumed(self) -> UnitPrices:
        """What units cost that the price list has no price of."""
        names = UnitPrices.__struct_fields__
        return UnitPrices(*(getattr(self, f"assumed_{name}_usd") for name in names))

    def __post_init__(self) -> None:
        if self.upstreams and self.upstream_url is not None:
            raise ValueError("upstream_url: not together with [upstreams]; declare it there, or leave those out")

    @property
    def openrouter_key(self) -> str | None:
        """The operator's key at OpenRouter. Not a setting, so that no file and no listing shows it."""
        return os.environ.get(OPENROUTER_KEY_VARIABLE) or None

    @property
    def is_simulated(self) -> bool:
        """Whether the built-in simulator is the upstream."""
        return not self.upstreams and self.upstream_url is None and self.openrouter_key is None

    @property
    def declared(self) -> list[Declared]:
        """The upstreams that are declared under `[upstreams.NAME]`."""
        return [each.declared(name, self) for name, each in self.upstreams.items()]

    @property
    def every_plan(self) -> Mapping[str, Plan]:
        """The built-in plans and those of the settings, by name."""
        return {**BUILT_IN, **{name: declared.plan(name) for name, declared in self.plans.items()}}


def config_file() -> Path:
    return Path(os.environ.get(CONFIG_FILE_VARIABLE, CONFIG_FILE))


def load(defaults: Mapping[str, object] = MappingProxyType({}), **given: Any) -> Settings:
    """Read the settings; `given` are those of the command line (None where it does not set one), `defaults` count
    where nothing else is said.

    Raises:
        BadSettings: something in them is wrong.
    """
    if CONFIG_FILE_VARIABLE in os.environ and not config_file().is_file():
        raise BadSettings(f"{CONFIG_FILE_VARIABLE}: there is no file {config_file()}")
    _refuse_unknown(os.environ)
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return read(Settings, {**defaults, **in_file(), **_in_environment(), **given})
    except WrongTable as error:
        raise BadSettings("\n".join(_worded(wrong, given) for wrong in error.wrongs)) from error
    except ValueError as error:
        raise BadSettings(f"{config_file()}: {error}") from error


def in_file() -> dict[str, Any]:
    """What `farebox.toml` says. Raises ValueError: it is not TOML, or not UTF-8."""
    path = config_file()
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


_TRUTHS = {"1": True, "on": True, "yes": True, "true": True, "0": False, "off": False, "no": False, "false": False}


def _in_environment() -> dict[str, object]:
    """What variables say: of a list its members with commas, of tables JSON. An empty one says nothing."""
    texts = {name.upper(): text for name, text in os.environ.items() if text}
    found: dict[str, object] = {}
    for member in structs.fields(Settings):
        text = texts.get(f"{PREFIX}{member.name.upper()}")
        if text is None:
            continue
        kind = get_args(member.type)[0] if get_origin(member.type) is Annotated else member.type
        match get_origin(kind) or kind:
            case builtins.list:
                found[member.name] = [each.strip() for each in text.split(",") if each.strip()]
            case builtins.dict:
                found[member.name] = _json(text)
            case builtins.bool:
                found[member.name] = _TRUTHS.get(text.strip().lower(), text)
            case _:
                found[member.name] = text.strip()
    return found


def _json(text: str) -> object:
    """A text that is none is found wrong as it stands."""
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value


def _refuse_unknown(names: Iterable[str]) -> None:
    """Refuse variables that look like settings and are none: what is misspelt would silently not hold.

    Raises:
        BadSettings: one line for each, with the name that it is nearest to.
    """
    settings = [name.upper() for name in Settings.__struct_fields__]
    known = [*settings, *(name.removeprefix(PREFIX) for name in OTHER_VARIABLES)]
    given = sorted(name.upper() for name in names if name.upper().startswith(PREFIX))
    unknown = [name for name in given if name.removeprefix(PREFIX) not in known and not _SERVICE.fullmatch(name)]
    if unknown:
        raise BadSettings("\n".join(_no_such(name, name.removeprefix(PREFIX), known, PREFIX) for name in unknown))


def _no_such(where: str, name: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = get_close_matches(name, list(known), n=1)
    return f"{where}: there is no such setting" + (f"; did you mean {prefix}{nearest[0]}?" if nearest else "")


def _worded(wrong: Wrong, given: Mapping[str, object]) -> str:
    name = wrong.path[0] if wrong.path else ""
    if name in given:
        where = "--upstream" if name == "upstream_url" else "--" + name.replace("_", "-")
    elif f"{PREFIX}{name.upper()}" in os.environ:
        where = f"{PREFIX}{name.upper()}"
    else:
        where = f"{config_file()}: {'.'.join(wrong.path)}" if wrong.path else f"{config_file()}"
    if wrong.known is not None:
        return _no_such(where, wrong.path[-1], wrong.known)
    # A database's URL may have a password in it.
    is_shown = wrong.given is not None and name != "database_url" and isinstance(wrong.given, str | int | float)
    return f"{where}: {wrong.words}" + (f" (it is {wrong.given!r})" if is_shown else "")
