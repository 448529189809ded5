"""Backups while orders run, and what becomes of them when they are restored."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from tests.gateway import Gateway, eventually
from tests.served.test_upgrade import migrate


def test_a_backup_is_of_one_moment_while_orders_run(gateway: Gateway) -> None:
    """Four callers order on meanwhile."""
    stop = threading.Event()

    def order() -> None:
        while not stop.is_set():
            assert gateway.chat().status == 200

    callers = [threading.Thread(target=order) for _ in range(4)]
    for each in callers:
        each.start()
    file = gateway.folder / "kept.db"
    first = gateway.cli("backup", str(file))
    second = gateway.cli("backup", str(file), "--overwrite")
    stop.set()
    for each in callers:
        each.join()
    assert first["differences"] == second["differences"] == []
    assert second["orders"]["posted"] >= first["orders"]["posted"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in gateway.folder.glob("kept*")) == ["kept.db"]
    assert gateway.run("backup", str(file)).returncode == 1
    assert gateway.cli("audit", "--database-url", f"sqlite:///{file}")["orders"] == second["orders"]


def test_an_order_under_way_is_open_when_the_backup_is_restored(gateway: Gateway) -> None:
    gateway.chat()
    waiting = threading.Thread(target=lambda: gateway.chat(simulate="head-ms=1500"))
    waiting.start()
    eventually(lambda: gateway.cli("audit")["orders"]["pending"] == 1)
    file = gateway.folder / "kept.db"
    assert gateway.cli("backup", str(file))["orders"] == {"pending": 1, "open": 0, "posted": 1, "voided": 0}
    waiting.join()
    gateway.cli("account", "create", "later", "--plan", "paying")
    refused = gateway.run("restore", str(file), "--overwrite")
    assert (refused.returncode, "stop the servers first" in refused.stderr) == (1, True)
    gateway.stop()
    refused = gateway.run("restore", str(file))
    assert (refused.returncode, "has accounts" in refused.stderr) == (1, True)
    restored = gateway.cli("restore", str(file), "--overwrite")
    assert restored["orders"]["pending"] == 1
    kept = gateway.cli("account", "list", "--database-url", f"sqlite:///{restored['set_aside']}")
    assert [each["name"] for each in kept] == ["demo", "later"]
    assert file.exists()
    gateway.start()
    assert "1 orders were cut off" in gateway.banner
    assert [each["name"] for each in gateway.cli("account", "list")] == ["demo"]
    assert [each["reason"] for each in gateway.cli("reconcile", "--list")] == ["the process that served it has gone"]
    gateway.audit()


def test_the_log_of_a_file_that_was_taken_away_is_not_written_over_the_backup(gateway: Gateway) -> None:
    """It is kept: with that file it is what was booked last."""
    gateway.chat()
    file = gateway.folder / "kept.db"
    gateway.cli("backup", str(file))
    for _ in range(3):
        gateway.chat()
    later = gateway.audit()
    gateway.kill()
    path = gateway.folder / "data" / "farebox.db"
    old = path.rename(gateway.folder / "old.db")
    restored = gateway.cli("restore", str(file))
    assert restored["orders"] == gateway.audit()["orders"] == {"pending": 0, "open": 0, "posted": 1, "voided": 0}
    Path(restored["set_aside"]).rename(old.with_name("old.db-wal"))
    assert gateway.cli("audit", "--database-url", f"sqlite:///{old}")["orders"] == later["orders"]
    # So it is where a backup takes the place of another one.
    for end in ("-wal", "-shm", "-journal"):
        file.with_name(file.name + end).write_bytes(b"of another file")
    gateway.cli("backup", str(file), "--overwrite")
    assert sorted(each.name for each in gateway.folder.glob("kept*")) == ["kept.db"]


def test_a_backup_never_takes_the_place_of_the_books(gateway: Gateway) -> None:
    gateway.chat()
    (gateway.folder / "link.db").symlink_to(gateway.folder / "data" / "farebox.db")
    for name in ("data/farebox.db", "link.db"):
        refused = gateway.run("backup", name, "--overwrite")
        assert (refused.returncode, "is the file of the books" in refused.stderr) == (1, True), refused.stderr
    gateway.chat()
    assert gateway.audit()["orders"]["posted"] == 2


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    shell = Gateway(tmp_path)
    for name, content, said in (
        ("nothing.db", None, "there is no backup at"),
        ("empty.db", b"", "there is no backup at"),
        ("text.db", b"text " * 1000, "cannot be used as a database"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        done = shell.run("restore", name)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "data").exists()


def test_a_backup_that_an_audit_finds_wrong_is_not_restored(tmp_path: Path) -> None:
    shell = Gateway(tmp_path)
    shell.copy_books()
    shell.cli("account", "create", "a", "--plan", "paying", "--prepaid", "5")
    shell.cli("backup", str(tmp_path / "kept.db"))
    with closing(sqlite3.connect(tmp_path / "kept.db")) as db:
        db.execute("UPDATE balance SET credits_nanos = credits_nanos + 1")
        db.commit()
    before = (tmp_path / "data" / "farebox.db").read_bytes()
    refused = shell.run("restore", "kept.db", "--overwrite")
    assert (refused.returncode, "finds 1 differences" in refused.stderr) == (1, True)
    assert (tmp_path / "data" / "farebox.db").read_bytes() == before
    assert sorted(each.name for each in (tmp_path / "data").iterdir()) == ["farebox.db", "farebox.db-workers"]
    assert (
        len(shell.cli("restore", str(tmp_path / "kept.db"), "--overwrite", "--even-if-wrong", code=1)["differences"])
        == 1
    )


def test_older_books_are_copied_as_they_are_and_restored_into_this_schema(tmp_path: Path) -> None:
    shell = Gateway(tmp_path)
    (tmp_path / "data").mkdir()
    migrate(f"sqlite:///{tmp_path}/data/farebox.db", "0009")
    copied = shell.cli("backup", str(tmp_path / "kept.db"))
    assert (copied["schema"], copied["differences"]) == ("0009", None)
    with closing(sqlite3.connect(tmp_path / "data" / "farebox.db")) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("0009",)
    (tmp_path / "data" / "farebox.db").unlink()
    assert shell.cli("restore", str(tmp_path / "kept.db"))["differences"] == []
    shell.audit()


def test_books_in_postgresql_are_its_own_tools(tmp_path: Path) -> None:
    shell = Gateway(tmp_path, FAREBOX_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/books")
    done = shell.run("backup", "kept.dump")
    assert done.returncode == 1
    assert "pg_dump --format=custom --no-owner --file=kept.dump 'postgresql://me@127.0.0.1:1/books'" in done.stderr
    assert "secret" not in done.stderr
