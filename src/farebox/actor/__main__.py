"""`python -m farebox.actor`, which the Actor's image starts: in Standby a server, else a batch with an end."""

import asyncio
import logging
import os
import sys
from contextlib import ExitStack, aclosing, suppress
from typing import NoReturn

from msgspec.structs import replace

from farebox.actor import batch, standby
from farebox.actor.environment import ActorEnvironment, BadEnvironment, read_environment
from farebox.actor.hosting import Hosting, apify_of
from farebox.from_settings import SIMULATOR_URL_VARIABLE, way_to
from farebox.ports import ApifyUnreachable, BillerUnreachable, BooksUnavailable
from farebox.serving import CannotListen
from farebox.settings import OPENROUTER_KEY_VARIABLE, BadSettings, Settings, load
from farebox.simulator import server as simulator
from farebox.store.prepare import UnusableBooks, is_postgres, prepare
from farebox.telemetry.logs import PlainLines

GRACE_SECONDS = 8
"""How long answers on their way are waited for at the end, unless a setting says otherwise. (The platform kills an idle
run 30 s after it announces its end.)"""


def main() -> None:
    """Run the Actor; exits with 2 where its environment or its settings are wrong, with 1 for all other trouble."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Its lines show the URLs of calls, and some of the platform's hold secrets.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    try:
        environment = read_environment(os.environ)
        settings = _settings(environment)
        _check_ways_out(environment, settings)
    except (BadEnvironment, BadSettings) as error:
        _fail(str(error), 2)
    try:
        code = _run(environment, settings)
    except (UnusableBooks, BooksUnavailable, BillerUnreachable, ApifyUnreachable, CannotListen, ValueError) as error:
        _last_words(environment, settings, str(error))
        _fail(str(error))
    sys.exit(code)


def _run(environment: ActorEnvironment, settings: Settings) -> int:
    if settings.is_simulated and environment.is_at_home:
        raise BooksUnavailable(f"{OPENROUTER_KEY_VARIABLE}: not set; the Actor's build needs it as a secret variable")
    with ExitStack() as stack:
        if settings.is_simulated:
            os.environ[SIMULATOR_URL_VARIABLE] = stack.enter_context(simulator.embedded())
        prepare(settings.database_url)
        environment = asyncio.run(_with_prices(environment, settings))
        if not environment.is_standby:
            return asyncio.run(batch.serve_input(environment, settings))
        standby.serve(environment, settings)
        return 0


async def _with_prices(environment: ActorEnvironment, settings: Settings) -> ActorEnvironment:
    """The environment with the prices of the Actor's event, asked of the platform where they are not in it. Raises
    BillerUnreachable; ValueError, the event has no price."""
    if environment.has_prices or (apify := apify_of(environment, settings)) is None:
        return environment
    async with aclosing(apify):
        return replace(environment, prices=await apify.prices(), has_prices=True)


def _settings(environment: ActorEnvironment) -> Settings:
    """A gateway's settings, with the address that the platform gives the run. Raises BadSettings."""
    defaults: dict[str, object] = {"grace_seconds": GRACE_SECONDS}
    if not environment.is_at_home:
        # In the folder of the run's storages, apart from a gateway's own books.
        defaults["database_url"] = f"sqlite:///{environment.storage / 'farebox.db'}"
    settings = load(
        defaults,
        host="0.0.0.0" if environment.is_at_home else "127.0.0.1",  # noqa: S104 - a container's only way out
        port=environment.port,
        workers=1,
    )
    if is_postgres(settings.database_url):
        raise BadSettings("FAREBOX_DATABASE_URL: a run's books are its own, sqlite:///PATH")
    own = settings.public_url or environment.standby_url or f"http://127.0.0.1:{environment.port}"
    return replace(settings, public_url=own)


def _check_ways_out(environment: ActorEnvironment, settings: Settings) -> None:
    """Raises BadSettings: a proxy or certificates that the platform needs are not named well."""
    for url in (environment.api_url, environment.system_events_url):
        if url is not None:
            way_to(url, settings)


def _last_words(environment: ActorEnvironment, settings: Settings, message: str) -> None:
    """Say in the run's status message why it failed, if the platform can be reached."""

    async def say() -> None:
        async with aclosing(Hosting(environment, settings)) as hosting:
            with suppress(ApifyUnreachable):
                await hosting.storage.say(message, is_last=True)

    asyncio.run(say())


def _fail(message: str, code: int = 1) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"farebox: {line}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
