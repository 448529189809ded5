"""What the settings name: upstreams and the ways to them, price files, guards. Each function raises BadSettings where
there can be no such."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import asdict

from farebox.core.attribution import Attribution
from farebox.core.declared import Declared, Timeouts
from farebox.core.price_files import BadPrices
from farebox.deadlines import Deadlines
from farebox.guards.loading import BadGuard, make_guard
from farebox.guards.running import DeclaredGuard
from farebox.outgoing import BadWay, WayOut
from farebox.outgoing import way_to as find_way_to
from farebox.ports import Directory, Upstream
from farebox.price_lists import Ask, read_file
from farebox.settings import (
    OPENROUTER_KEY_VARIABLE,
    OPENROUTER_KIND,
    OPENROUTER_URL,
    BadSettings,
    Settings,
    config_file,
)
from farebox.telemetry.traces import is_traced, traces_url
from farebox.upstream import Kind
from farebox.upstream.table import KINDS

SIMULATOR_URL_VARIABLE = "FAREBOX_SIMULATOR_URL"
"""Where `farebox serve` tells its workers the URL of the embedded simulator."""


def kind_of(declared: Declared, setting: str) -> Kind:
    """The kind of upstream that a declaration names. Raises BadSettings: there is no such kind."""
    kind = KINDS.get(declared.kind)
    if kind is None:
        raise BadSettings(f"{setting}: there is no kind `{declared.kind}`, only {', '.join(map(repr, KINDS))}")
    return kind


def way_to(url: str, settings: Settings) -> WayOut:
    """How an address outside is reached, as the settings and the environment say. Raises BadSettings."""
    try:
        return find_way_to(url, settings.ca_file)
    except BadWay as error:
        raise BadSettings(str(error)) from error


def declared_upstreams(settings: Settings) -> list[Declared]:
    """The upstreams that the settings name: those under `[upstreams]`, or the one that there is without them.

    Raises:
        BadSettings: one cannot be made, or is this gateway itself.
    """
    if not settings.upstreams:
        return [_only_upstream(settings)]
    for declared in settings.declared:
        where = f"{config_file()}: upstreams.{declared.name}"
        kind_of(declared, f"{where}.kind")
        if not declared.base_url:
            raise BadSettings(f"{where}.base_url: not set, and the kind `{declared.kind}` has no URL of its own")
        _check_traits(declared, where)
        if declared.key_variable is not None and not os.environ.get(declared.key_variable):
            raise BadSettings(f"{where}.key_variable: the environment variable {declared.key_variable} is not set")
        if _is_this_gateway(declared.base_url, settings):
            raise BadSettings(
                f"{where}.base_url: {declared.base_url} is this gateway itself; orders would go in circles"
            )
    return settings.declared


def _check_traits(declared: Declared, where: str) -> None:
    """Raises BadSettings: traits are declared of an upstream that sees to them itself."""
    if not declared.tells_cost:
        return
    for place, traits in ((where, declared.traits), *((f"{where}.per_model", each) for _, each in declared.per_model)):
        said = [name for name, value in asdict(traits).items() if value is not None]
        if said:
            raise BadSettings(
                f"{place}.{said[0]}: not for the kind `{declared.kind}`, which knows its own hosts and picks among them"
            )


def _only_upstream(settings: Settings) -> Declared:
    url = settings.upstream_url or (os.environ.get(SIMULATOR_URL_VARIABLE) if settings.is_simulated else OPENROUTER_URL)
    timeouts = Timeouts(settings.connect_seconds, settings.first_byte_seconds, settings.no_data_seconds)
    name = "simulator" if settings.is_simulated else settings.upstream_kind
    declared = Declared(
        name,
        settings.upstream_kind,
        url or "",
        timeouts,
        OPENROUTER_KEY_VARIABLE,
        at_hang_up=settings.hang_up,
        is_built_in=True,
    )
    kind_of(declared, "FAREBOX_UPSTREAM_KIND")
    if settings.upstream_kind != OPENROUTER_KIND and settings.upstream_url is None:
        raise BadSettings(
            f"FAREBOX_UPSTREAM_URL: not set, and the kind `{settings.upstream_kind}` has no URL of its own"
        )
    if not declared.tells_cost:
        raise BadSettings(
            f"FAREBOX_UPSTREAM_KIND: `{settings.upstream_kind}` tells no prices; declare it under [upstreams.NAME] in"
            f" {config_file()}, with `prices`"
        )
    if url is None:
        raise BadSettings(f"{OPENROUTER_KEY_VARIABLE}: not set, and only `farebox serve` brings a simulator along")
    return declared


def _is_this_gateway(url: str, settings: Settings) -> bool:
    """Whether a URL leads back here, as far as that is known before anything is asked."""
    there = _place(url)
    own = {(settings.host, settings.port), *([_place(settings.public_url)] if settings.public_url else [])}
    return there in {(_LOCAL if host in LOCAL_HOSTS else host, port) for host, port in own if port}


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return _LOCAL if host in LOCAL_HOSTS else host, parts.port or (443 if parts.scheme == "https" else 80)


LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - nothing is bound here
_LOCAL = "localhost"


def upstream_of(declared: Declared, settings: Settings, deadlines: Deadlines) -> Upstream:
    """An upstream that is declared. Raises BadSettings."""
    key = os.environ.get(declared.key_variable) if declared.key_variable is not None else None
    if settings.is_simulated and not key:
        key = "sk-or-simulated"
    way = way_to(declared.base_url, settings)
    return kind_of(declared, declared.name)(declared, key or None, deadlines, way)


def check_ways_out(settings: Settings) -> None:
    """Raises BadSettings: a proxy or certificates that an address outside needs are not named well."""
    urls = [each.base_url for each in declared_upstreams(settings)]
    for url in (*urls, *([traces_url()] if is_traced() else [])):
        way_to(url, settings)


def check_price_file(settings: Settings) -> None:
    """Raises BadSettings: the price file is wrong."""
    if settings.prices_file is not None:
        try:
            read_file(Path(settings.prices_file))
        except BadPrices as error:
            raise BadSettings(str(error)) from error


def openrouters_lists(settings: Settings) -> Ask:
    """Asks for the model lists that the price file takes prices from: of the upstream that the settings name where that
    is OpenRouter, else of OpenRouter's public address. Raises BadSettings."""
    timeouts = Timeouts(settings.connect_seconds, settings.first_byte_seconds, settings.no_data_seconds)
    public = Declared("openrouter", OPENROUTER_KIND, OPENROUTER_URL, timeouts, OPENROUTER_KEY_VARIABLE)
    named = [] if settings.is_simulated else declared_upstreams(settings)
    declared = next((each for each in named if each.kind == OPENROUTER_KIND), public)
    way_to(declared.base_url, settings)

    async def ask() -> tuple[bytes, ...]:
        openrouter = upstream_of(declared, settings, Deadlines())
        try:
            return await openrouter.prices()
        finally:
            await openrouter.close()

    return ask


def guards_of(settings: Settings) -> list[DeclaredGuard]:
    """The guards that are declared, in their order. Raises BadSettings."""
    found: list[DeclaredGuard] = []
    for name, each in settings.guards.items():
        try:
            guard = make_guard(each.kind or name, each.settings)
        except BadGuard as error:
            raise BadSettings(f"{config_file()}: guards.{name}: {error}") from error
        found.append(DeclaredGuard(name, guard, each.seconds, each.on_failure))
    return found


async def attribution_of(settings: Settings, books: Directory) -> Attribution:
    """How the books keep for whom orders are. The key of digests is one for all nodes."""
    given = settings.end_user_secret
    is_needed = settings.end_users != "off"
    secret = given.reveal().encode() if given else await books.secret("end_users") if is_needed else b""
    return Attribution(settings.end_users, secret, frozenset(settings.metadata_tags))
