"""PgBouncer, Debian's, in front of a PostgreSQL."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from tests.conftest import debian_install, missing
from tools.postgres import Cluster, free_port

PROGRAM = Path("/usr/sbin/pgbouncer")
START_SECONDS = 20

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = 50
"""


@contextmanager
def pgbouncer(cluster: Cluster, mode: str, *more: str) -> Iterator[int]:
    """Its port, for as long as the block runs; `more` are lines of its configuration."""
    if not PROGRAM.exists():
        debian_install("pgbouncer")
    if not PROGRAM.exists():
        missing("PgBouncer is not installed, so nothing is tried behind it")
    port = free_port()
    with TemporaryDirectory(prefix="farebox-pgbouncer-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users").write_text('"farebox" ""\n')
        text = _CONFIGURATION.format(server=cluster.port, port=port, folder=folder, mode=mode)
        (folder / "configuration").write_text("\n".join([text, *more, ""]))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [PROGRAM, folder / "configuration"], cwd=folder, user=cluster.user, stdout=log, stderr=log
            )
        try:
            _wait(process, cluster, port, folder / "log")
            yield port
        finally:
            process.kill()
            process.wait(timeout=20)


def _wait(process: "subprocess.Popen[bytes]", cluster: Cluster, port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    url = behind(cluster, port, cluster.url("postgres"))
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return


def behind(cluster: Cluster, port: int, url: str) -> str:
    """The URL of a database of the cluster's, as it is reached through a port."""
    return url.replace(f":{cluster.port}/", f":{port}/")
