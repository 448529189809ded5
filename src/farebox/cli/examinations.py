"""What `farebox doctor` looks at: this machine, the settings, the books, the ways out and the upstreams. Nothing is
ordered, nothing is made, and no secret is quoted."""

import asyncio
import errno
import os
import platform
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from farebox import __version__, clock
from farebox.connectors import connector, session_options
from farebox.core.books import NotEnded
from farebox.core.declared import Declared
from farebox.core.upstream import ALL_MODELS, Failed, Listing, ListKind, ListQuery
from farebox.deadlines import Deadlines
from farebox.from_settings import check_price_file, declared_upstreams, guards_of, upstream_of, way_to
from farebox.outgoing import WayOut
from farebox.ports import BooksUnavailable, Upstream, UpstreamBroke, UpstreamUnreachable
from farebox.serving import OTHER_FILES, CannotListen, listen
from farebox.settings import OPENROUTER_KIND, BadSettings, Settings
from farebox.store.prepare import (
    HEAD,
    SQLITE_MIN,
    UnusableBooks,
    is_postgres,
    open_store,
    place,
    refuse_newer,
    schema_of,
    shown,
    sqlite_path,
)
from farebox.store.sqlite import Sqlite

State = Literal["ok", "warning", "wrong"]

SKEW_WARN_SECONDS = 5
SKEW_WRONG_SECONDS = 120
"""How far this clock may be from the upstreams', which tell theirs to the second."""

FREE_WARN_BYTES = 2**30
FREE_WRONG_BYTES = 100 * 2**20

FSYNC_WARN_MS = 50
"""Each commit waits for the disk: above this, an order waits visibly."""

ANSWER_SECONDS = 20

REMOTE = frozenset("nfs nfs4 cifs smb3 smbfs 9p afs ceph glusterfs fuse.sshfs fuse.s3fs lustre".split())
"""File systems on which SQLite's locks, or its shared memory, are not those of one machine."""

_OWN_MODELS = ListQuery(ListKind.OWN_MODELS)


class Finding(Struct, frozen=True):
    """What was looked at, how it stands, and what to do where it is not well."""

    what: str
    state: State
    said: str
    advice: str | None = None


def versions() -> Iterator[Finding]:
    """This program, its Python and its SQLite; and which extras are there."""
    there = {"postgres": "psycopg", "mcp": "mcp", "otel": "opentelemetry", "guards": "re2", "import": "yaml"}
    extras = [name for name, module in there.items() if find_spec(module) is not None]
    said = f"Farebox {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
    said += f" {platform.system()} {platform.machine()}; extras: {', '.join(extras) or 'none'}"
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        yield Finding("versions", "wrong", said, "use a Python whose SQLite is 3.38 or newer")
    else:
        yield Finding("versions", "ok", said)


def settings_in_force(settings: Settings) -> Iterator[Finding]:
    """What the settings name beside themselves: upstreams, guards, prices."""
    try:
        guards_of(settings)
        check_price_file(settings)
        if not settings.is_simulated:
            declared_upstreams(settings)
        yield Finding("settings", "ok", "they can be read; `farebox config` shows them")
    except BadSettings as error:
        yield Finding("settings", "wrong", str(error), "mend the setting that is named")


def books(settings: Settings) -> Iterator[Finding]:
    """Whether the books can be read and written, and what in them waits for somebody."""
    url = settings.database_url
    upgrade = "`farebox serve` or `farebox db upgrade` brings it up to date; older servers go on meanwhile"
    try:
        found = schema_of(url, to_write=True)
        refuse_newer(url, found)
    except UnusableBooks as error:
        yield Finding("books", "wrong", str(error), "see that the path or the server is right, and may be written")
        return
    if found is None:
        make = "`farebox serve` or `farebox db upgrade` makes them; FAREBOX_DATABASE_URL says where they are"
        yield Finding("books", "warning", f"there are none at {place(url)}", make)
        return
    if found != HEAD:
        yield Finding("books", "warning", f"{shown(url)} has schema {found}, and this version is for {HEAD}", upgrade)
        return
    try:
        not_ended = asyncio.run(_write_and_count(url))
    except (BooksUnavailable, UnusableBooks) as error:
        yield Finding("books", "wrong", str(error), "another program may hold them, or may write and not you")
        return
    yield Finding("books", "ok", f"{place(url)}: schema {HEAD}, written in a look{_journal(url)}")
    if not_ended.unresolved:
        said = f"{not_ended.unresolved} orders whose cost nobody will tell any more"
        yield Finding("open orders", "warning", said, "`farebox reconcile --list`, then decide on each")
    else:
        yield Finding("open orders", "ok", f"{not_ended.pending} being served, {not_ended.open} asked about")


async def _write_and_count(database_url: str) -> NotEnded:
    async with open_store(database_url, ANSWER_SECONDS) as store:
        await store.answer()
        return await store.not_ended()


def _journal(database_url: str) -> str:
    if is_postgres(database_url):
        return ""
    engine = Sqlite(sqlite_path(database_url))
    with closing(engine.connect()) as db:
        (mode,) = db.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = db.execute("PRAGMA synchronous").fetchone()
    serving = sorted(engine.worker_pids() - {os.getpid()})
    served = f", served by process {', '.join(map(str, serving))}" if serving else ", nobody serves"
    return f", journal mode {mode}, synchronous {('off', 'normal', 'full', 'extra')[synchronous]}{served}"


def disks(settings: Settings) -> Iterator[Finding]:
    """Space, and whether what is written is there after fsync, where books and spool are."""
    folders = {"spool": Path(settings.spool)}
    if not is_postgres(settings.database_url):
        folders = {"books": sqlite_path(settings.database_url).parent, **folders}
    seen: set[Path] = set()
    for what, folder in folders.items():
        there = _nearest(folder)
        if there not in seen:
            seen.add(there)
            yield _disk(f"disk ({what})", there, is_of_sqlite=what == "books")


def _nearest(folder: Path) -> Path:
    """The folder, or what is there of the way to it."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _disk(what: str, folder: Path, *, is_of_sqlite: bool) -> Finding:
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    try:
        began = time.monotonic()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"farebox")
            file.flush()
            os.fsync(file.fileno())
        took_ms = (time.monotonic() - began) * 1000
    except OSError as error:
        return Finding(what, "wrong", f"{folder} cannot be written: {error.strerror}", "let this user write there")
    said = f"{folder}: {free / 2**30:.1f} GiB free, an fsync takes {took_ms:.1f} ms"
    if free < FREE_WRONG_BYTES:
        return Finding(what, "wrong", said, "make room: orders are refused when it is full")
    if is_of_sqlite and (kind := _file_system(folder)) in REMOTE:
        return Finding(what, "wrong", f"{said}; on {kind}", "put the file on a disk of this machine, or use PostgreSQL")
    if free < FREE_WARN_BYTES:
        return Finding(what, "warning", said, "make room: an order takes 0.55 KB of it")
    if took_ms > FSYNC_WARN_MS:
        return Finding(what, "warning", said, "each order waits for one: use a faster disk")
    return Finding(what, "ok", said)


def _file_system(folder: Path) -> str:
    """The kind of file system a folder is on; empty where the system does not say."""
    with suppress(OSError):
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
        within = [(place, kind) for place, kind in mounts if folder.is_relative_to(place)]
        return max(within, key=lambda each: len(each[0]))[1] if within else ""
    return ""


def files_and_port(settings: Settings) -> Iterator[Finding]:
    """How many connections may be open, and whether the port is free."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.connections_max + OTHER_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        said = f"at most {most}, and {settings.connections_max} connections want {wanted}"
        advice = "raise the limit (`ulimit -Hn`, LimitNOFILE=), or lower FAREBOX_CONNECTIONS_MAX"
        yield Finding("open files", "warning", said, advice)
    else:
        yield Finding("open files", "ok", f"{wanted} are enough, and may be had")
    at = f"{settings.port} on {settings.host}"
    try:
        listen(settings.host, settings.port).close()
        yield Finding("port", "ok", f"{at} is free: no gateway serves there now")
    except CannotListen as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE and asyncio.run(_is_farebox(settings)):
            yield Finding("port", "ok", f"a gateway serves at {at}")
        else:
            yield Finding("port", "wrong", str(error), "set FAREBOX_PORT (or --port), or stop the other program")


async def _is_farebox(settings: Settings) -> bool:
    """Whether what listens there answers as a gateway does."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - nothing is bound
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/healthz"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        try:
            async with session.get(url) as answer:
                return answer.status == 200 and await answer.json() == {"status": "ok"}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False


def upstreams(settings: Settings) -> Iterator[Finding]:
    """For each upstream: the way to it, whether it takes its key and tells what it serves; and this machine's clock."""
    if settings.is_simulated:
        advice = "set OPENROUTER_API_KEY, or declare [upstreams.NAME] in farebox.toml, for real models"
        yield Finding("upstream", "warning", "SIMULATED: made-up answers, and no money moves", advice)
        return
    try:
        declared = declared_upstreams(settings)
        ways = [way_to(each.base_url, settings) for each in declared]
    except BadSettings:
        return  # told among the settings
    for each, way in zip(declared, ways, strict=True):
        if each.key_variable is not None and not os.environ.get(each.key_variable):
            said = f"{each.key_variable} is not set: the upstream is asked without a key"
            yield Finding(f"upstream {each.name}", "warning", said, f"export {each.key_variable}")
        yield from asyncio.run(_ask(each, way, settings))


async def _ask(declared: Declared, way: WayOut, settings: Settings) -> list[Finding]:
    what = f"upstream {declared.name}"
    upstream = upstream_of(declared, settings, Deadlines())
    where = f"{_without_user(declared.base_url)}{way.described}"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            said, is_well = await _models(upstream)
    except (UpstreamUnreachable, UpstreamBroke) as error:
        advice = (
            "see that the address, the proxy (HTTPS_PROXY, NO_PROXY) and the certificates (FAREBOX_CA_FILE) are right"
        )
        return [Finding(what, "wrong", f"{where}: {error}", advice)]
    except TimeoutError:
        return [Finding(what, "wrong", f"{where}: no answer within {ANSWER_SECONDS} s", "see whether it is up")]
    finally:
        await upstream.close()
    if not is_well:
        key = declared.key_variable or "its key"
        return [Finding(what, "wrong", f"{where}: {said}", f"see that {key} holds a key that is good there")]
    return [Finding(what, "ok", f"{where}: {said}"), *await _clock(declared, way)]


async def _models(upstream: Upstream) -> tuple[str, bool]:
    """What an upstream says of its models, where it is asked with the key; and whether that is well."""
    if upstream.declared.kind == OPENROUTER_KIND:
        # Its list of all models is public; this one is not.
        own = await upstream.page(_OWN_MODELS)
        if isinstance(own, Failed):
            return f"it did not take the key ({own.answer})", False
        documents = await upstream.prices()
        try:
            count = len(upstream.read_prices(documents).rates)
        except ValueError as error:
            return f"its prices cannot be read: {error}", False
        key = "the key is good" if isinstance(own, Listing) else "whether the key is good it does not tell"
        return f"{key}; {count} models have prices", True
    answer = await upstream.page(ALL_MODELS)
    if not isinstance(answer, Listing):
        return f"it does not tell its models ({_said(answer)})", False
    prices = {"free": "all free", "file": "priced by your file", "openrouter": "priced by OpenRouter's list"}
    return f"it takes the key and lists {len(answer.entries)} models, {prices.get(upstream.declared.prices, '')}", True


def _said(answer: object) -> str:
    return str(getattr(answer, "answer", None) or getattr(answer, "message", None) or type(answer).__name__)


async def _clock(declared: Declared, way: WayOut) -> list[Finding]:
    """How far this machine's clock is from an upstream's."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(connector=connector(way), timeout=timeout, **session_options(way)) as session:
        try:
            began_us = clock.now_us()
            async with session.get(declared.base_url, allow_redirects=False) as answer:
                ours_us = (began_us + clock.now_us()) // 2
                theirs_us = clock.us_of(parsedate_to_datetime(answer.headers.get("date", "")))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return []
    # It is cut to the second: half of one is what it is off by on the average.
    off = (ours_us - theirs_us) / 1_000_000 - 0.5
    said = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} {declared.name}'s"
    if abs(off) <= SKEW_WARN_SECONDS:
        return [Finding("clock", "ok", f"within {SKEW_WARN_SECONDS} s of {declared.name}'s")]
    state: State = "wrong" if abs(off) > SKEW_WRONG_SECONDS else "warning"
    return [Finding("clock", state, said, "set it by NTP: limits, expiries and repeats are counted by it")]


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def every(settings: Settings) -> Iterator[Finding]:
    """All of it, each as it is found."""
    yield from settings_in_force(settings)
    yield from books(settings)
    yield from disks(settings)
    yield from files_and_port(settings)
    yield from upstreams(settings)
