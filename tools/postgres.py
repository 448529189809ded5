"""A PostgreSQL of one's own: Debian's, in a temporary folder, on a free port."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import psycopg

from farebox.store.prepare import prepare

INSTALLED = Path("/usr/lib/postgresql")
START_SECONDS = 30


def find() -> Path | None:
    """The folder of the server's programs."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next(iter(sorted(INSTALLED.glob("*/bin"), reverse=True)), None)


def free_port() -> int:
    """A port that a server may leave and come back to: one that the system gives to no connection meanwhile (Linux
    gives them those from 32768 on)."""
    while True:
        port = 12_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Cluster:
    """One server and its databases. It refuses root, so that it runs as Debian's user where whoever asks is root."""

    def __init__(self, programs: Path, primary: "Cluster | None" = None) -> None:
        """With a `primary`: its standby, on which the primary's commits wait from now on."""
        self._programs = programs
        self.user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="farebox-postgres-"))
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.port = free_port()
        self._databases = 0
        if primary is None:
            self._run("initdb", "-D", "data", "-U", "farebox", "-A", "trust", "-E", "UTF8", "--locale", "C", "-N")
        else:
            source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "farebox")
            self._run("pg_basebackup", *source, "-D", "data", "-R", "-c", "fast", "-X", "stream", "-N")
        self.start()
        if primary is not None:
            primary.wait_for_standby()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(  # noqa: S603 - Debian's own programs
            command, cwd=self.folder, user=self.user, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def start(self, *, is_durable: bool = False) -> None:
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "max_connections=300",
            *(() if is_durable else ("fsync=off", "synchronous_commit=off")),
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [self._programs / "postgres", "-D", "data", *options],
                cwd=self.folder,
                user=self.user,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=1).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast, connections are cut; SIGQUIT: immediate, as a crash."""
        self.process.send_signal(how)
        self.process.wait(30)

    def wait_for_standby(self) -> None:
        """Let every commit wait until a standby has it, too."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            db.execute("SELECT pg_reload_conf()")
            until = time.monotonic() + START_SECONDS
            while db.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is None:
                assert time.monotonic() < until, "no standby follows"
                time.sleep(0.05)

    def promote(self) -> None:
        """Make a standby the primary. It waits for nobody."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            db.execute("SELECT pg_reload_conf()")
            db.execute("SELECT pg_promote()")

    def _processes(self) -> list[int]:
        """The server's, and that of each connection; none where it was stopped."""
        own = self.process.pid
        if self.process.poll() is not None:
            return []
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def freeze(self) -> None:
        """Let it accept connections and say nothing any more."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, what: signal.Signals) -> None:
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process, what)

    def remove(self) -> None:
        self.thaw()
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        return f"postgresql://farebox@127.0.0.1:{self.port}/{name}"

    def new_database(self, template: str | None = None, encoding: str | None = None) -> str:
        """The URL of a database of its own: empty, or a copy."""
        self._databases += 1
        name = f"books_{self._databases}"
        if encoding is not None:
            template = f"template0 ENCODING '{encoding}'"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return self.url(name)

    @cache  # noqa: B019 - one cluster a session
    def template(self) -> str:
        """The name of a database with the newest schema and nothing in it."""
        url = self.new_database()
        prepare(url)
        return url.rpartition("/")[2]

    def new_books(self) -> str:
        """The URL of new books."""
        return self.new_database(self.template())
