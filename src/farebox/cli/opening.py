"""What `farebox serve` does. Without typer and what that brings along, so that a server need not carry it."""

import asyncio
import os
import shutil
import socket
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from farebox import __version__, clock
from farebox.accounts import Accounts, NotFound
from farebox.app import App
from farebox.cli.trouble import CannotServe
from farebox.core.callers import Key
from farebox.core.money import format_usd, parse_usd
from farebox.from_settings import SIMULATOR_URL_VARIABLE, declared_upstreams, way_to
from farebox.serving import CannotListen, listen, run
from farebox.settings import OPENROUTER_KEY_VARIABLE, Settings, load
from farebox.store.books import SqlStore
from farebox.store.prepare import is_postgres, open_store, prepare, shown, sqlite_path
from farebox.telemetry.watch import what_is_missing

DEMO_ACCOUNT = "demo"
DEMO_USD = "5"
DEMO_MODEL = "sim/echo"

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class _Opening:
    """What was found and made before serving: the `accounts` from before, by name; the `demo_key`, if the demo account
    was made just now; how many `orphans`; what publishing the `plans` changed, in words; and the token of a `link` that
    signs the demo account in to the console once, if there is one."""

    accounts: list[str]
    demo_key: str | None
    orphans: int
    plans: str
    link: str | None


def serve(**given: Any) -> None:
    """Serve by the settings; `given` are those of the command line. Raises what `trouble.MENDABLE` names."""
    with ExitStack() as stack:
        settings = load(**given)
        if (missing := what_is_missing()) is not None:
            raise CannotServe(missing)
        prepare(settings.database_url)
        bound = stack.enter_context(listening(settings.host, settings.port))
        port = bound.getsockname()[1]
        if settings.public_url is None:
            settings = structs.replace(settings, public_url=f"http://{url_host(settings.host)}:{port}")
        if settings.is_simulated:
            # Only here: a gateway before a real upstream need not carry the simulator.
            from farebox.simulator import server as simulator

            os.environ[SIMULATOR_URL_VARIABLE] = stack.enter_context(simulator.embedded())
        app = App(settings)
        opening = asyncio.run(_open(settings))
        print(_banner(settings, port, opening), flush=True)
        run(settings, app, bound)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises CannotServe."""
    try:
        return listen(host, port)
    except CannotListen as error:
        raise CannotServe(str(error)) from error


async def _open(settings: Settings) -> _Opening:
    """Look into the books before serving, publish this node's plans, and make the demo account if there are no
    accounts."""
    async with open_store(settings.database_url) as store:
        orphans = await store.open_orphans()
        accounts = Accounts(store, settings.every_plan)
        plans = await _publish_plans(accounts)
        existing = [account.name for account, _ in await accounts.accounts()]
        demo_key = None
        if settings.host not in LOOPBACK:
            await _refuse_demo(accounts, settings.host)
        elif settings.is_simulated and not existing:
            await accounts.create(DEMO_ACCOUNT, "paying", 0, parse_usd(DEMO_USD))
            demo_key, _, _ = await accounts.create_key(DEMO_ACCOUNT, "made at the first start")
        link = await _demo_link(store, accounts, settings)
        return _Opening(existing, demo_key, len(orphans), plans, link)


async def _demo_link(store: SqlStore, accounts: Accounts, settings: Settings) -> str | None:
    """A link for whoever sees this terminal: on loopback, and while nothing costs real money."""
    if not settings.console or not settings.is_simulated or settings.host not in LOOPBACK:
        return None
    keys: list[Key] = []
    with suppress(NotFound):
        keys = [key for _, key in await accounts.keys(DEMO_ACCOUNT) if key.revoked_us is None]
    if not keys:
        return None
    from farebox.console.reading import SqlConsole
    from farebox.console.sessions import new_link

    console = SqlConsole(store.engine)
    try:
        return await new_link(console, keys[-1].id)
    finally:
        await console.close()


async def _publish_plans(accounts: Accounts) -> str:
    """Have every node serve under this node's plans from now on; what that changes, in words."""
    changed = await accounts.publish_plans(socket.gethostname())
    if changed is None:
        return ""
    before, others = changed
    return (
        f"Plans: not those that {before.by} published at {clock.iso(before.published_us)} ({others})."
        " This node started last: all nodes serve under its plans now."
    )


async def _refuse_demo(accounts: Accounts, host: str) -> None:
    """Refuse to serve others with a demo key, which was printed where anybody may have read it."""
    with suppress(NotFound):
        if any(key.revoked_us is None for _, key in await accounts.keys(DEMO_ACCOUNT)):
            raise CannotServe(
                f"--host: {host} can be reached from elsewhere, and the account `{DEMO_ACCOUNT}` has a key that works;"
                f" revoke it first: farebox key list {DEMO_ACCOUNT}, then farebox key revoke ID"
            )


def _banner(settings: Settings, port: int, opening: _Opening) -> str:
    site = f"http://{url_host(settings.host)}:{port}"
    base = f"{site}/api/v1"
    lines = ["", f"Farebox {__version__} on {base}", f"Books: {shown(settings.database_url)}{_where(settings)}"]
    if settings.is_simulated:
        lines += [
            "Upstream: SIMULATED. It answers at made-up prices, and no money moves.",
            f"  For real models, set {OPENROUTER_KEY_VARIABLE} to an OpenRouter key and start again.",
        ]
    else:
        lines += _upstream_lines(settings)
    if opening.demo_key:
        lines += [
            "",
            f"Account `{DEMO_ACCOUNT}` has ${format_usd(parse_usd(DEMO_USD))}. Its key, shown this once:",
            "",
            f"  {opening.demo_key}",
            "",
            "Try it:",
            "",
            f"  curl {base}/chat/completions \\",
            f"    -H 'Authorization: Bearer {opening.demo_key}' -H 'Content-Type: application/json' \\",
            f"""    -d '{{"model": "{DEMO_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""",
            "",
            f"Then, in this folder: `farebox statement {DEMO_ACCOUNT}` shows what it cost, `farebox audit` proves it,",
            f"`farebox doctor` says whether all is well. In a browser: {base.removesuffix('/api/v1')}/",
            *_how_to_find_it(),
        ]
    elif not opening.accounts:
        lines += [
            "",
            "There are no accounts yet: `farebox account create NAME --plan paying --prepaid 5`,",
            "then `farebox key create NAME`.",
        ]
    elif DEMO_ACCOUNT in opening.accounts and not settings.is_simulated:
        lines += [
            "",
            f"Account `{DEMO_ACCOUNT}` is from a simulated start, and its key now spends real money. To stop that:",
            f"  farebox key list {DEMO_ACCOUNT}, then farebox key revoke ID",
        ]
    if settings.console:
        lines += ["", f"Console: {site}/console"]
    if opening.link:
        lines.append(f"  As `{DEMO_ACCOUNT}`, once and within an hour: {site}/console/enter/{opening.link}")
    if opening.plans:
        lines += ["", opening.plans]
    if opening.orphans:
        lines += [
            "",
            f"{opening.orphans} orders were cut off by a process that died. Their holds are open;",
            "  farebox reconcile --list shows them.",
        ]
    return "\n".join([*lines, ""])


def _how_to_find_it() -> list[str]:
    """What has a shell find this program where no `farebox` is on its PATH: `make serve`, `pipx run` and `uvx` keep it
    in a folder of their own, which uvx puts on the PATH of this process alone."""
    own = Path(sys.prefix, "bin")
    is_everywhere = sys.prefix in (sys.base_prefix, os.environ.get("VIRTUAL_ENV"))
    folders = [each for each in os.get_exec_path() if is_everywhere or Path(each) != own]
    if shutil.which("farebox", path=os.pathsep.join(folders)) is not None:
        return []
    program = own / "farebox"
    called = program if program.is_file() else f"{sys.executable} -m farebox"
    return ["", "`farebox` is not on your PATH. In another terminal, first:", "", f"  alias farebox='{called}'"]


def _where(settings: Settings) -> str:
    """In which folder a relative path is looked for: another one has other books."""
    if is_postgres(settings.database_url) or sqlite_path(settings.database_url).is_absolute():
        return ""
    return f" in {Path.cwd()}"


def _upstream_lines(settings: Settings) -> list[str]:
    every = declared_upstreams(settings)
    if settings.upstreams:
        places = [f"{each.base_url}{way_to(each.base_url, settings).described}" for each in every]
        return ["Upstreams:", *(f"  {e.name} ({e.kind}): {place}" for e, place in zip(every, places, strict=True))]
    url = every[0].base_url
    lines = [f"Upstream: {url}{way_to(url, settings).described}"]
    if settings.openrouter_key is None:
        lines.append(f"  {OPENROUTER_KEY_VARIABLE} is not set: the upstream is asked without a key.")
    return lines


def url_host(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
