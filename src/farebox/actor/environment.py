"""What the platform says to an Actor in its environment. An empty variable counts as one that is not set.

Names and meanings: Apify's documentation of an Actor's environment; several have an older name beside the present one.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from farebox import clock
from farebox.actor.event_prices import EventPrices, read_event_prices
from farebox.core.money import parse_usd
from farebox.core.reading import UNREADABLE, read_whole
from farebox.platform.priced_events import PRICED_EVENT

API_URL = "https://api.apify.com"
PORT = 4321

T = TypeVar("T")


class BadEnvironment(Exception):  # noqa: N818 - the word of the house
    """Which variable is wrong, and what would be right."""


class ActorEnvironment(Struct, frozen=True):
    """One run, as its environment describes it.

    `is_at_home`: on the platform, not on a developer's machine. `user_id` and `user_is_paying` are of the user whose
    run it is, `timeout_at` is in seconds since 1970, `prices` are None where the run is not paid per event
    (`has_prices`) or where the environment does not say (not `has_prices`), `counted` are the priced events charged for
    the run so far.
    """

    is_standby: bool
    is_at_home: bool
    is_test: bool
    port: int
    standby_url: str | None
    token: str | None
    api_url: str
    user_id: str | None
    user_is_paying: bool
    run_id: str | None
    dataset_id: str
    store_id: str
    input_key: str
    storage: Path
    system_events_url: str | None
    timeout_at: float | None
    limit_nanos: int | None
    prices: EventPrices | None
    has_prices: bool
    counted: int


def read_environment(variables: Mapping[str, str]) -> ActorEnvironment:
    """Read a run's environment. Raises BadEnvironment."""

    def value(*names: str) -> str | None:
        return next((variables[name] for name in names if variables.get(name)), None)

    def is_true(name: str) -> bool:
        return (value(name) or "").lower() in ("1", "true")

    def parsed(parse: Callable[[str], T], *names: str) -> T | None:
        text = value(*names)
        try:
            return None if text is None else parse(text)
        except (*UNREADABLE, ValueError) as error:
            raise BadEnvironment(f"{names[0]}: {error}") from error

    def base(*names: str) -> str | None:
        """A base URL without a slash at its end, which some have, and without the version."""
        url = value(*names)
        return None if url is None else url.rstrip("/").removesuffix("/v2")

    port = parsed(_port, "ACTOR_WEB_SERVER_PORT", "ACTOR_STANDBY_PORT", "APIFY_CONTAINER_PORT")
    environment = ActorEnvironment(
        is_standby=value("APIFY_META_ORIGIN") == "STANDBY",
        is_at_home=is_true("APIFY_IS_AT_HOME"),
        is_test=is_true("ACTOR_TEST_PAY_PER_EVENT"),
        port=PORT if port is None else port,
        standby_url=base("ACTOR_STANDBY_URL", "ACTOR_WEB_SERVER_URL", "APIFY_CONTAINER_URL"),
        token=value("APIFY_TOKEN"),
        api_url=base("APIFY_API_BASE_URL") or API_URL,
        user_id=value("APIFY_USER_ID"),
        user_is_paying=is_true("APIFY_USER_IS_PAYING"),
        run_id=value("ACTOR_RUN_ID", "APIFY_ACTOR_RUN_ID"),
        dataset_id=value("ACTOR_DEFAULT_DATASET_ID", "APIFY_DEFAULT_DATASET_ID") or "default",
        store_id=value("ACTOR_DEFAULT_KEY_VALUE_STORE_ID", "APIFY_DEFAULT_KEY_VALUE_STORE_ID") or "default",
        input_key=value("ACTOR_INPUT_KEY", "APIFY_INPUT_KEY") or "INPUT",
        storage=Path(value("APIFY_LOCAL_STORAGE_DIR", "CRAWLEE_STORAGE_DIR") or "storage"),
        system_events_url=value("ACTOR_EVENTS_WEBSOCKET_URL", "APIFY_ACTOR_EVENTS_WS_URL"),
        timeout_at=parsed(_moment, "ACTOR_TIMEOUT_AT", "APIFY_TIMEOUT_AT"),
        limit_nanos=parsed(_limit, "ACTOR_MAX_TOTAL_CHARGE_USD"),
        prices=parsed(_prices, "APIFY_ACTOR_PRICING_INFO"),
        has_prices=value("APIFY_ACTOR_PRICING_INFO") is not None,
        counted=parsed(_counted, "APIFY_CHARGED_ACTOR_EVENT_COUNTS") or 0,
    )
    if environment.is_at_home and environment.is_test:
        raise BadEnvironment("ACTOR_TEST_PAY_PER_EVENT: for runs on one's own machine; the platform charges for real")
    if environment.is_at_home and None in (environment.token, environment.run_id, environment.user_id):
        raise BadEnvironment("APIFY_TOKEN, ACTOR_RUN_ID, APIFY_USER_ID: a run has them, and one is missing")
    return environment


def _port(text: str) -> int:
    port = read_whole(text, 0, 65_535)
    if port is None:
        raise ValueError(f"a port, not {text!r}")
    return port


def _moment(text: str) -> float | None:
    """Seconds since 1970. An unreadable one is left out: the platform ends the run in time anyway."""
    try:
        return clock.read_iso(text) / 1_000_000
    except ValueError:
        return None


def _limit(text: str) -> int:
    try:
        # The platform writes numbers as JSON does, also as 1e-05.
        return parse_usd(f"{Decimal(text):f}")
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"an amount in USD, not {text!r}") from error


def _prices(text: str) -> EventPrices | None:
    return read_event_prices(msgspec.json.decode(text, type=msgspec.Raw), PRICED_EVENT)


def _counted(text: str) -> int:
    counts: Any = msgspec.json.decode(text)
    count = counts.get(PRICED_EVENT, 0) if isinstance(counts, dict) else 0
    return count if isinstance(count, int) and count >= 0 else 0
