"""The Actor as a server, in Standby: the gateway at the run's port, until the platform stops it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farebox.actor.environment import ActorEnvironment
from farebox.actor.hosting import Hosting
from farebox.actor.probe import landing_page, standby
from farebox.actor.system_events import SystemEvent, listen
from farebox.app import App, Hosted
from farebox.identity.keys import PlansInForce
from farebox.ports import ApifyUnreachable, Upstream
from farebox.serving import listen as listen_at
from farebox.serving import run
from farebox.settings import Settings
from farebox.store.books import SqlStore

MIGRATION_SECONDS = 10.0
"""How long a migration leaves, where the platform does not say."""

RESERVED_SECONDS = 5.0
"""How much of that is reserved for charging, and for leaving what another machine needs, once answers were broken
off."""

SOONEST_SECONDS = 1.5
"""The least pause before a second signal: one that comes sooner counts as the first."""


def serve(environment: ActorEnvironment, settings: Settings) -> None:
    """Serve until the run is stopped, or moves."""
    bound = listen_at(settings.host, settings.port)
    url = settings.public_url or f"http://127.0.0.1:{bound.getsockname()[1]}"
    page = landing_page(url, f"{url}/docs")
    server = _Server(environment, settings)
    run(settings, App(settings, server.host, lambda app: standby(app, page)), bound)
    if server.is_migrating:
        asyncio.run(_move(environment, settings))


class _Server:
    def __init__(self, environment: ActorEnvironment, settings: Settings) -> None:
        self._environment = environment
        self._settings = settings
        self._hosting: Hosting | None = None
        self.is_migrating = False

    @asynccontextmanager
    async def host(self, store: SqlStore, upstream: Upstream, plans: PlansInForce) -> AsyncIterator[Hosted]:
        hosting = self._hosting = Hosting(self._environment, self._settings)
        system_events_url = self._environment.system_events_url
        listening = asyncio.create_task(listen(system_events_url, self._hear)) if system_events_url else None
        try:
            async with hosting.host(store, upstream, plans) as hosted:
                yield hosted
        finally:
            if listening is not None:
                listening.cancel()
            await hosting.close()

    async def _hear(self, event: SystemEvent) -> None:
        """Stop the server by a signal, in order; a second signal breaks off what has not ended by itself."""
        assert self._hosting is not None
        if event.name == "aborting":
            os.kill(os.getpid(), signal.SIGTERM)
        elif event.name == "migrating" and not self.is_migrating:
            self.is_migrating = True
            os.kill(os.getpid(), signal.SIGTERM)
            left = MIGRATION_SECONDS if event.remaining_seconds is None else event.remaining_seconds
            await asyncio.sleep(max(SOONEST_SECONDS, left - RESERVED_SECONDS))
            os.kill(os.getpid(), signal.SIGTERM)
        elif event.name == "persistState":
            await self._hosting.save()


async def _move(environment: ActorEnvironment, settings: Settings) -> None:
    """Have the platform start this run on the other machine now, then wait to be stopped: a process that ends by itself
    would end the run."""
    hosting = Hosting(environment, settings)
    try:
        assert hosting.apify is not None
        await hosting.apify.reboot()
    except ApifyUnreachable:
        pass  # it stops this machine in any case
    finally:
        await hosting.close()
    await asyncio.Event().wait()
