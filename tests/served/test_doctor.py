"""`farebox doctor`: what is not well is named, with what to do; nothing is made, and no secret is shown."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway
from tests.upstreams import HttpUpstream

KEY = "sk-or-a-secret-of-the-operators"


@pytest.fixture
def upstream() -> Iterator[HttpUpstream]:
    with HttpUpstream().serving() as upstream:
        yield upstream


def examined(shell: Gateway, code: int = 0) -> dict[str, dict[str, Any]]:
    """What was found, by what was looked at."""
    found = shell.cli("doctor", code=code)
    assert found["is_well"] == (code == 0)
    assert KEY not in str(found)
    assert all(each["advice"] for each in found["findings"] if each["state"] != "ok")
    return {each["what"]: each for each in found["findings"]}


def test_an_empty_folder_is_well_and_stays_empty(tmp_path: Path) -> None:
    done = Gateway(tmp_path, FAREBOX_PORT="0").run("doctor")
    assert done.returncode == 0, done.stderr
    assert f"warning  books: there are none at {tmp_path}/data/farebox.db\n" in done.stdout
    assert "-> `farebox serve` or `farebox db upgrade` makes them" in done.stdout
    assert "SIMULATED" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert Gateway(tmp_path, FAREBOX_PORT="0").run("doctor", "--quiet").stdout.startswith("warning")


def test_a_gateway_that_serves_is_well(gateway: Gateway) -> None:
    gateway.environment["FAREBOX_PORT"] = str(gateway.port)
    found = examined(gateway)
    assert "journal mode wal, synchronous full, served by process" in found["books"]["said"]
    assert found["port"]["said"] == f"a gateway serves at {gateway.port} on 127.0.0.1"
    assert found["open orders"]["said"] == "0 being served, 0 asked about"
    assert found["disk (books)"]["state"] in ("ok", "warning"), "whoever runs this may have a full disk"


def test_what_an_upstream_says_is_told(tmp_path: Path, upstream: HttpUpstream) -> None:
    shell = Gateway(tmp_path, FAREBOX_PORT="0", FAREBOX_UPSTREAM_URL=upstream.url, OPENROUTER_API_KEY=KEY)
    shell.copy_books()
    well = examined(shell)
    assert "whether the key is good it does not tell" in well["upstream openrouter"]["said"]
    assert well["clock"]["state"] == "ok"
    upstream.pages["/models/user"] = {"data": []}
    assert "the key is good; " in examined(shell)["upstream openrouter"]["said"]
    upstream.is_down = True
    assert "status 503" in examined(shell, 1)["upstream openrouter"]["said"]
    del shell.environment["OPENROUTER_API_KEY"]
    shell.environment["FAREBOX_UPSTREAM_URL"] = "http://user:secret-word@127.0.0.1:9/api/v1"
    without = shell.cli("doctor", code=1)
    assert "secret-word" not in str(without)
    assert [each["state"] for each in without["findings"] if each["what"] == "upstream openrouter"] == [
        "warning",
        "wrong",
    ]


def test_books_that_are_not_well(tmp_path: Path) -> None:
    shell = Gateway(tmp_path, FAREBOX_PORT="0", FAREBOX_CONNECTIONS_MAX="100000000")
    shell.copy_books()
    assert examined(shell)["open files"]["state"] in ("warning", "ok")
    with closing(sqlite3.connect(tmp_path / "data" / "farebox.db")) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.commit()
    assert "from a newer Farebox" in examined(shell, 1)["books"]["said"]
    (tmp_path / "data" / "farebox.db").write_bytes(b"no books at all, and long enough to be looked at" * 100)
    assert "cannot be used as a database" in examined(shell, 1)["books"]["said"]
    (tmp_path / "farebox.toml").write_text('prices_file = "nowhere.toml"')
    assert "nowhere.toml" in examined(shell, 1)["settings"]["said"]
    (tmp_path / "farebox.toml").write_text("prot = 1")
    assert "did you mean port?" in examined(shell, 1)["settings"]["said"]
