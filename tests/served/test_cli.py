"""The commands, as an operator types them."""

import contextlib
import json
import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from farebox import __version__
from farebox.cli.completion import SCRIPTS, candidates
from tests.gateway import Gateway, clean_environment


@pytest.fixture
def shell(tmp_path: Path) -> Gateway:
    """Commands on new books in a folder of their own; nothing is served."""
    shell = Gateway(tmp_path)
    shell.copy_books()
    return shell


def test_accounts_from_opening_to_statement(shell: Gateway) -> None:
    made = shell.cli("account", "create", "alice", "--plan", "paying", "--prepaid", "2.5")
    assert (made["balance_usd"], made["terms"], made["available_usd"]) == ("2.5", "prepaid", "2.5")
    assert shell.cli("account", "create", "bob", "--plan", "free", "--postpaid", "--limit", "1")["available_usd"] == "1"
    assert shell.cli("account", "create", "carol", "--plan", "paying", "--postpaid")["available_usd"] is None
    assert shell.cli("account", "create", "dave", "--plan", "paying")["available_usd"] == "0"
    assert shell.cli("account", "top-up", "alice", "$0.5")["balance_usd"] == "3"
    assert [account["name"] for account in shell.cli("account", "list")] == ["alice", "bob", "carol", "dave"]
    statement = shell.cli("statement", "alice")
    assert [line["amount_usd"] for line in statement["lines"]] == ["2.5", "0.5"]
    assert shell.cli("audit")["paid_in_usd"] == "3"
    assert shell.cli("reconcile", "--list") == []


def test_keys_are_shown_once(shell: Gateway) -> None:
    shell.cli("account", "create", "alice", "--plan", "paying")
    made = shell.cli("key", "create", "alice", "--label", "laptop")
    assert re.fullmatch(r"sk-fb-[\w-]{43}", made["key"])
    other = shell.run("key", "create", "alice").stdout.strip()
    assert other.startswith("sk-fb-")
    listed = shell.run("key", "list", "alice").stdout
    assert made["hint"] in listed
    assert "laptop" in listed
    assert made["key"] not in listed
    assert shell.cli("key", "cache", made["hint"], "60")["cache_seconds"] == 60
    assert shell.cli("key", "cache", made["hint"], "0")["cache_seconds"] is None
    assert shell.cli("key", "revoke", made["hint"])["revoked"]
    assert shell.cli("key", "revoke", other)["revoked"]
    assert all(key["revoked"] for key in shell.cli("key", "list", "alice"))
    shell.cli("account", "create", "bob", "--plan", "paying")
    assert shell.cli("key", "create", "bob", "--cache-seconds", "5")["cache_seconds"] == 5
    limited = shell.cli("key", "create", "bob", "usd_per_month=5", "models=sim/*")
    assert limited["limits"] == {"usd_per_month": "5", "models": ["sim/*"]}
    assert shell.cli("key", "list", "bob")[1]["limits"] == limited["limits"]
    assert "usd_per_month: 'much' is not an amount" in shell.run("key", "create", "bob", "usd_per_month=much").stderr
    assert len(shell.cli("key", "list", "bob")) == 2
    assert [key["account"] for key in shell.cli("key", "list")] == ["alice", "alice", "bob", "bob"]


def test_the_version_is_said_without_loading_what_serves() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "farebox", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"farebox {__version__}\n")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "farebox" in loaded
    assert not loaded & {"sqlalchemy", "pydantic", "pydantic_settings", "typer", "aiohttp", "starlette", "msgspec"}


def test_tables_for_people(shell: Gateway) -> None:
    shell.cli("account", "create", "alice", "--plan", "paying", "--prepaid", "5")
    assert re.search(r"alice +paying +prepaid +5 +0 +5", shell.run("account", "list").stdout)
    assert "alice (paying): paid in $5, spent $0 (0 events), balance $5" in shell.run("statement", "alice").stdout
    shell.cli("account", "top-up", "alice", "1", "--note", "\x1b[2Jcleared\ngone")
    assert "\ufffd[2Jcleared\ufffdgone" in shell.run("trail").stdout
    assert shell.run("audit").stdout.endswith("differences: 0\n")
    assert shell.run("reconcile", "--list").stdout == "No hold is open.\n"
    assert shell.run("--version").stdout.startswith("farebox ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["account", "create", "x", "--plan", "gold"], 1, "there is no plan `gold`; there are free, paying"),
        (["account", "create", "x", "--plan", "paying", "--prepaid", "five"], 2, "not an amount in USD"),
        (["account", "create", "x", "--plan", "paying", "--prepaid", "-1"], 2, ""),
        (["account", "create", "x", "--plan", "paying", "--prepaid", "1", "--postpaid"], 2, "exclude each other"),
        (["account", "create", "x", "--plan", "paying", "--limit", "1"], 2, "--limit goes with --postpaid"),
        (["account", "create", "", "--plan", "paying"], 2, "not a name"),
        (["account", "create", "(cash)", "--plan", "paying"], 2, "not a name"),
        (["account", "create", "alice", "--plan", "paying"], 1, "there is an account `alice` already"),
        (["account", "top-up", "nobody", "1"], 1, "there is no account `nobody`"),
        (["account", "top-up", "alice", "0"], 2, "more than zero"),
        (["key", "create", "nobody"], 1, "there is no account `nobody`"),
        (["key", "revoke", "sk-fb-nothing"], 1, "there is no key"),
        (["statement", "nobody"], 1, "there is no account `nobody`"),
        (["statement", "alice", "--database-url", "mysql://x"], 2, "--database-url"),
        (["db", "upgrade", "--database-url", "sqlite:////proc/nowhere/x.db"], 1, "cannot be used"),
        (["audit", "--database-url", "sqlite:////proc/nowhere/x.db"], 1, "there are no books at /proc/nowhere/x.db"),
        (["serve", "--port", "99999"], 2, "--port"),
        (["serve", "--workers", "0"], 2, "--workers"),
        (["serve", "--upstream", "openrouter"], 2, "--upstream"),
        (["serve", "--host", "203.0.113.1"], 2, "--host: cannot listen"),
    ],
)
def test_what_is_wrong_is_said_clearly(shell: Gateway, arguments: list[str], code: int, said: str) -> None:
    shell.run("account", "create", "alice", "--plan", "paying")
    done = shell.run(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


COMMANDS = [
    ["account", "create", "x", "--plan", "paying"],
    ["account", "top-up", "x", "1"],
    ["account", "list"],
    ["account", "limit", "x"],
    ["account", "change", "x", "--plan", "free"],
    ["account", "close", "x"],
    ["account", "reopen", "x"],
    ["account", "import", "people.csv"],
    ["key", "create", "x"],
    ["key", "import", "keys.csv"],
    ["key", "rotate", "1"],
    ["refund", "x", "--reason", "y"],
    ["correct", "x", "--cost", "0.1", "--reason", "y"],
    ["key", "list"],
    ["key", "revoke", "1"],
    ["key", "disable", "1"],
    ["key", "enable", "1"],
    ["key", "limit", "1"],
    ["key", "cache", "1", "60"],
    ["key", "store", "1", "off"],
    ["management-key", "create"],
    ["management-key", "list"],
    ["management-key", "revoke", "1"],
    ["end-user", "list", "x"],
    ["end-user", "limit", "x", "ann", "usd_per_month=1"],
    ["end-user", "default", "x", "usd_per_month=1"],
    ["alert", "add", "https://alerts.example/hook"],
    ["alert", "list"],
    ["alert", "remove", "1"],
    ["alert", "test", "1"],
    ["alert", "deliveries", "1"],
    ["alert", "low-balance", "x", "5"],
    ["trail"],
    ["statement", "x"],
    ["activity"],
    ["reconcile"],
    ["audit"],
    ["db", "check"],
    ["db", "recount"],
    ["backup", "kept.db"],
    ["batch", "orders.jsonl", "--key", "k"],
]


def test_only_serve_and_db_upgrade_make_books(tmp_path: Path) -> None:
    """Every other command says where it looked for them, and leaves nothing behind."""
    files = [tmp_path / name for name in ("orders.jsonl", "people.csv", "keys.csv")]
    for file, text in zip(files, ("{}", "name,plan\nx,paying\n", f"digest,account\n{'0' * 64},x\n"), strict=True):
        file.write_text(text)
    for arguments in COMMANDS:
        done = Gateway(tmp_path).run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert str(tmp_path / "data" / "farebox.db") in done.stderr, arguments
        assert "`farebox db upgrade`" in done.stderr
    current = Gateway(tmp_path).run("db", "current")
    assert (current.returncode, current.stdout.startswith(f"{tmp_path}/data/farebox.db: schema none yet")) == (0, True)
    copied = Gateway(tmp_path).run("db", "copy", "sqlite:///data/farebox.db", "postgresql://127.0.0.1:1/books")
    assert (copied.returncode, f"no books at {tmp_path}/data/farebox.db" in copied.stderr) == (1, True)
    for asked in (["upstream", "list"], ["upstream", "check", "simulator"]):
        assert Gateway(tmp_path).run(*asked).returncode == 0
    assert sorted(tmp_path.iterdir()) == sorted(files)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "farebox.db").write_bytes(b"")
    assert "there are no books at" in Gateway(tmp_path).run("audit").stderr, (
        "a file with nothing in it has none, either"
    )
    assert (tmp_path / "data" / "farebox.db").read_bytes() == b""
    assert Gateway(tmp_path).run("db", "upgrade").returncode == 0
    assert Gateway(tmp_path).run("audit").stdout.endswith("differences: 0\n")


def test_no_command_is_left_out_of_that() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text()
    named = re.findall(r"^## `farebox (.+)`$", page, re.MULTILINE)
    others = {
        "serve",
        "simulate",
        "prices check",
        "db current",
        "db upgrade",
        "db copy",
        "upstream list",
        "upstream check",
        "import litellm",
        "doctor",
        "config",
        "completion",
        "restore",
    }
    assert set(named) > others
    for name in set(named) - others:
        assert any(f"{' '.join(words)} ".startswith(f"{name} ") for words in COMMANDS), name


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FAREBOX_PORT", "http", "FAREBOX_PORT: "),
        ("FAREBOX_DATABASE_URL", "data.db", "FAREBOX_DATABASE_URL: write sqlite:///PATH"),
        ("FAREBOX_UPSTREAM_URL", "localhost:1", "FAREBOX_UPSTREAM_URL: write a URL"),
        ("FAREBOX_NO_DATA_SECONDS", "-1", "FAREBOX_NO_DATA_SECONDS: "),
        ("FAREBOX_CONFIG", "nowhere.toml", "FAREBOX_CONFIG: there is no file nowhere.toml"),
        ("FAREBOX_PROT", "8081", "FAREBOX_PROT: there is no such setting; did you mean FAREBOX_PORT?"),
        ("farebox_workerz", "2", "FAREBOX_WORKERZ: there is no such setting; did you mean FAREBOX_WORKERS?"),
        ("FAREBOX_XYZZY", "1", "FAREBOX_XYZZY: there is no such setting\n"),
    ],
)
def test_a_bad_setting_is_named(shell: Gateway, variable: str, value: str, said: str) -> None:
    shell.environment[variable] = value
    done = shell.run("account", "list")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("prot = 1", "farebox.toml: prot: there is no such setting; did you mean port?"),
        ("[plans.gold]\nmultiplier = '0.00001'", "farebox.toml: plans.gold.multiplier: a multiplier is"),
        ("[plans.gold]\nmodel = []", "farebox.toml: plans.gold.model: there is no such setting; did you mean models?"),
        ("[plans.gold]\ndiscount = 1", "farebox.toml: plans.gold.discount: there is no such setting"),
        ("[plans.gold", "farebox.toml: "),
    ],
)
def test_a_bad_file_is_named(shell: Gateway, toml: str, said: str) -> None:
    (shell.folder / "farebox.toml").write_text(toml)
    done = shell.run("account", "list")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "farebox.toml").write_text(
        '[plans.resale]\nmultiplier = "1.25"\nanswer_tokens_max = 4\nmodels = ["sim/echo*"]\n'
    )
    with Gateway(tmp_path) as gateway:
        key = gateway.new_key("alice", "--plan", "resale", "--prepaid", "1")
        answer = gateway.chat(key, "cost=0.00003")
        assert answer.headers["x-farebox-fare-usd"] == "0.0000375"
        assert gateway.chat(key, "tokens=100").json["usage"]["completion_tokens"] == 4
        assert gateway.chat(key, model="sim/penny").status == 403
        gateway.audit()
        gateway.stop()
        (tmp_path / "farebox.toml").unlink()
        gateway.start()
        assert "plan `resale`" in gateway.chat(key).error["message"]
        assert gateway.chat(key).status == 403


def test_a_port_that_is_taken_is_said_so(shell: Gateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = shell.run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "is taken by another program" in done.stderr


def test_the_simulator_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "farebox", "simulate", "--port", "0"]
    environment = clean_environment(PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as simulator:
        assert simulator.stdout
        url = re.search(r"http://\S+/api/v1", simulator.stdout.readline())
        assert url
        try:
            with Gateway(tmp_path, FAREBOX_UPSTREAM_URL=url[0], OPENROUTER_API_KEY="sk-or-x") as gateway:
                assert "SIMULATED" not in gateway.banner
                assert "There are no accounts yet" in gateway.banner
                key = gateway.new_key("alice", "--plan", "paying", "--prepaid", "1")
                assert gateway.chat(key).status == 200
        finally:
            simulator.terminate()


def test_what_cannot_be_printed_is_said_in_a_line(shell: Gateway) -> None:
    with Path("/dev/full").open("w") as full:
        for arguments in (["account", "list"], ["audit", "--json"]):
            done = subprocess.run(
                [sys.executable, "-m", "farebox", *arguments],
                cwd=shell.folder,
                env=shell.environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (1, "farebox: [Errno 28] No space left on device\n")


def test_an_audit_of_books_that_cannot_be_read_says_so(shell: Gateway) -> None:
    with contextlib.closing(sqlite3.connect(shell.folder / "data" / "farebox.db")) as db:
        db.execute("DROP TABLE charge")
    done = shell.run("audit")
    assert (done.returncode, done.stderr) == (1, "farebox: the books could not be read: no such table: charge\n")


def test_the_audit_finds_what_was_tampered_with(gateway: Gateway) -> None:
    for _ in range(3):
        gateway.chat()
    gateway.stop()
    assert gateway.audit()["orders"]["posted"] == 3
    db = sqlite3.connect(gateway.folder / "data" / "farebox.db")
    db.execute("DROP TRIGGER transfer_no_update")
    post = db.execute("SELECT id, hold_id FROM transfer WHERE kind = 'post' LIMIT 1").fetchone()
    for statement, undo, said in (
        (
            "UPDATE transfer SET cost = '0.5' WHERE id = ?",
            "UPDATE transfer SET cost = '0.00000255' WHERE id = ?",
            "50000 events",
        ),
        (
            "UPDATE transfer SET over_hold_nanos = 5 WHERE id = ?",
            "UPDATE transfer SET over_hold_nanos = 0 WHERE id = ?",
            "flagged",
        ),
        (
            "UPDATE transfer SET events = 2, amount_nanos = 20000 WHERE id = ?",
            "UPDATE transfer SET events = 1, amount_nanos = 10000 WHERE id = ?",
            "booked were 2 events",
        ),
    ):
        db.execute(statement, (post[0],))
        db.commit()
        done = gateway.run("audit", "--json")
        assert done.returncode == 1
        assert any(said in each for each in json.loads(done.stdout)["differences"]), done.stdout
        db.execute(undo, (post[0],))
        db.commit()
        assert gateway.run("audit").returncode == 0  # in its own process: this one has the file open
    for statement, undo, said in (
        (
            "UPDATE balance SET debits_nanos = debits_nanos - 1",
            "UPDATE balance SET debits_nanos = debits_nanos + 1",
            "its transfers say",
        ),
        (
            "UPDATE hold SET state = 'voided' WHERE id = ?",
            "UPDATE hold SET state = 'posted' WHERE id = ?",
            "is voided, and was ended by post",
        ),
        (
            "UPDATE hold SET amount_nanos = amount_nanos + 1 WHERE id = ?",
            "UPDATE hold SET amount_nanos = amount_nanos - 1 WHERE id = ?",
            "its transfer",
        ),
        (
            "UPDATE transfer SET debit_account_id = 99 WHERE hold_id = ?",
            "UPDATE transfer SET debit_account_id = (SELECT account_id FROM hold WHERE id = hold_id) WHERE hold_id = ?",
            "account 99: has transfers and is not in the books",
        ),
    ):
        parameters = (post[1],) if "?" in statement else ()
        db.execute(statement, parameters)
        db.commit()
        done = gateway.run("audit")
        assert done.returncode == 1
        assert said in done.stdout
        assert re.search(r"differences: [1-9]", done.stdout)
        db.execute(undo, parameters)
        db.commit()
    db.close()
    gateway.audit()


def test_the_demo_is_for_this_machine_alone(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        key_id = gateway.cli("key", "list", "demo")[0]["id"]
    refused = gateway.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "0.0.0.0 can be reached from elsewhere" in refused.stderr
    gateway.cli("key", "revoke", str(key_id))
    with Gateway(tmp_path, "--host", "0.0.0.0") as open_to_all:
        assert open_to_all.request("GET", "/healthz").status == 200
    elsewhere = tmp_path / "fresh"
    elsewhere.mkdir()
    with Gateway(elsewhere, "--host", "0.0.0.0") as fresh:
        assert fresh.key == ""
        assert "There are no accounts yet" in fresh.banner


PRICES = """
[[prices]]
upstream = "anthropic"
model = "claude-*"
per = "million"
prompt = 3
answer = "15"

[[prices]]
upstream = "anthropic"
model = "claude-*"
from = 2100-01-01
per = "million"
prompt = "2.50"
answer = "15"
request = "0.01"

[[prices]]
upstream = "local"
model = "*"
free = true
"""


def test_prices_are_looked_at_before_they_count(shell: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "my-prices.toml"
    file.write_text(PRICES)
    found = shell.cli("prices", "check", str(file))
    assert [(each["model"], each["stands"], each["usd"].get("prompt")) for each in found["prices"]] == [
        ("claude-*", "in force", "0.000003"),
        ("claude-*", "to come", "0.0000025"),
        ("*", "in force", "0"),
    ]
    table = [line.split() for line in shell.run("prices", "check", str(file)).stdout.splitlines()]
    assert table[0] == "UPSTREAM MODEL TERMS PROMPTS OVER FROM STANDS PROMPT ANSWER REQUEST".split()
    assert table[1] == "anthropic claude-* in force 3 15 0".split()
    assert table[2] == "anthropic claude-* 2100-01-01T00:00:00.000Z to come 2.5 15 0.01".split()
    assert table[3] == "local * in force, free 0 0 0".split()
    assert table[-1][-1] == found["version"]
    file.write_text(PRICES.replace("prompt = 3", "prompt = -3").replace("answer", "answr", 1))
    done = shell.run("prices", "check", str(file))
    assert done.returncode == 2
    said = [line.partition("(")[2].removeprefix("anthropic, claude-*): ") for line in done.stderr.splitlines()]
    assert said[0] == "answr: there is no such member; did you mean `answer`?"
    assert said[1] == "prompt: -3 is below zero; a price is 0 or more"
    assert said[2].startswith("answer: missing, and nothing is free by omission")
    assert shell.run("prices", "check").stderr == "farebox: FILE: name the price file, or set FAREBOX_PRICES_FILE\n"


def test_a_wrong_price_file_is_refused_at_a_start(shell: Gateway, tmp_path: Path) -> None:
    (tmp_path / "farebox.toml").write_text('prices_file = "my-prices.toml"')
    done = shell.run("serve", "--port", "0")
    assert (done.returncode, done.stderr) == (
        2,
        "farebox: my-prices.toml: it cannot be read: No such file or directory\n",
    )
    (tmp_path / "my-prices.toml").write_text(PRICES.replace("from = 2100-01-01", ""))
    done = shell.run("serve", "--port", "0")
    assert done.returncode == 2
    assert (
        "my-prices.toml: [[prices]] 2 (anthropic, claude-*): from: another entry has prices of the same" in done.stderr
    )


def test_a_shell_completes_commands_options_and_words(tmp_path: Path) -> None:
    for typed, found in (
        (["acc"], ["account"]),
        (["account", "cl"], ["close"]),
        (["account", "create", "x", "--plan", "paying", "--post"], ["--postpaid"]),
        (["simulate", "--port", "80", "--as", "an"], ["anthropic"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["account", "create", ""], []),
        (["nothing", "x"], []),
    ):
        assert candidates(typed) == found, typed
    script = f"""
        farebox() {{ {sys.executable} -m farebox "$@"; }}
        eval "$(farebox completion bash)"
        COMP_WORDS=(farebox key rot); COMP_CWORD=2; _farebox; echo "${{COMPREPLY[@]}}"
        complete -p farebox
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout == "rotate\ncomplete -o default -F _farebox farebox\n", done.stderr
    assert subprocess.run(["bash", "-n"], input=SCRIPTS["bash"], text=True).returncode == 0


def test_the_settings_in_force_are_shown_with_where_they_are_from(tmp_path: Path) -> None:
    """And no secret."""
    (tmp_path / "farebox.toml").write_text(
        'port = 8090\nworkers = 2\n[plans.gold]\nmultiplier = "1.5"\n'
        '[guards.words]\nkind = "patterns"\nsettings = { token = "secret-1" }\n'
        '[upstreams.own]\nkind = "openai"\nprices = "free"\nbase_url = "http://127.0.0.1:1/v1"\n'
        'key_variable = "OWN_KEY"'
    )
    shell = Gateway(
        tmp_path,
        FAREBOX_PORT="8091",
        FAREBOX_METRICS_TOKEN="secret-2",
        FAREBOX_DATABASE_URL="postgresql://me:secret-3@db/books",
        HTTPS_PROXY="http://me:secret-4@proxy:80",
        OWN_KEY="secret-5",
    )
    rows = {each["setting"]: (each["value"], each["from"]) for each in shell.cli("config")}
    config = str(tmp_path / "farebox.toml")
    assert rows["port"] == ("8091", "FAREBOX_PORT")
    assert rows["workers"] == ("2", config)
    assert rows["host"] == ("127.0.0.1", "default")
    assert rows["metrics_token"] == ("(set)", "FAREBOX_METRICS_TOKEN")
    assert rows["database_url"] == ("postgresql://me:***@db/books", "FAREBOX_DATABASE_URL")
    assert rows["HTTPS_PROXY"] == ("http://***@proxy:80", "environment")
    assert rows["OWN_KEY"] == ("(set)", "environment")
    assert rows["OPENROUTER_API_KEY"][0] == "(not set)"
    assert rows["plans.gold"] == ("multiplier=1.5", config)
    assert rows["guards.words"] == ("kind=patterns; settings=token", config)
    assert "secret-" not in str(rows)
    assert not [each for each in shell.cli("config", "--changed") if each["from"] == "default"]


def test_dates_are_said_with_an_example(shell: Gateway) -> None:
    shell.cli("account", "create", "alice", "--plan", "paying", "--prepaid", "5")
    for arguments, said in (
        (
            ("statement", "alice", "--since", "yesterday"),
            "farebox: --since: 'yesterday' is no moment; write 2026-11-28,",
        ),
        (("statement", "alice", "--month", "26"), "farebox: --month: '26' is no month; write it like 2026-11\n"),
        (("statement", "alice", "--month", "2026-13"), "farebox: --month: '2026-13' is no month"),
        (("statement", "alice", "--month", "2026-11", "--since", "2026"), "exclude each other"),
        (("statement", "alice", "--since", "2026-12", "--until", "2026-11"), "--until: a moment after that of --since"),
        (("key", "create", "alice", "--expires", "soon"), "farebox: --expires: 'soon' is no moment"),
        (("key", "create", "alice", "--expires", "9999-12-31T23:00-05:00"), "farebox: --expires: '9999-12-31T23:00-05"),
        (("statement", "alice", "--month", "9999-12"), "farebox: --month: '9999-12' is no month"),
        (("activity", "alice", "--month", "9999-12"), "farebox: --month: '9999-12' is no month"),
        (("statement", "alice", "--since", "9999-12-31"), "--since: '9999-12-31' is not of a year from 1970 to 9998"),
        (("statement", "alice", "--until", "9999-12-31"), "--until: '9999-12-31' is not of a year from 1970 to 9998"),
        (("trail", "--since", "0001-01-01T00:00+14:00"), "--since: '0001-01-01T00:00+14:00' is no moment"),
        (("activity", "--csv", "--json"), "--json and --csv exclude each other"),
    ):
        done = shell.run(*arguments)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert [len(shell.cli("statement", "alice", "--month", each)["lines"]) for each in ("2001-12", "2001-01")] == [0, 0]
    assert len(shell.cli("statement", "alice", "--since", "2020-01", "--until", "2099-01-01T00:00+02:00")["lines"]) == 1
    assert shell.cli("key", "create", "alice", "--expires", "2099-01")["expires"] == "2099-01-01T00:00:00.000Z"
    head, line = shell.run("statement", "alice", "--csv").stdout.splitlines()
    assert head.startswith("time,what,kind,key,model,generation_id,cost_usd,events,amount_usd")
    assert ",top-up,,,,,,,5," in line
    assert shell.run("account", "list", "--csv").stdout.splitlines()[1].startswith("alice,paying,prepaid,0,5,0,5,")
    assert shell.run("account", "list").stdout.split() == (
        "NAME PLAN TERMS BALANCE HELD AVAILABLE THIS MONTH STATE alice paying prepaid 5 0 5 0 open".split()
    )


def test_a_terminal_is_shown_what_fits_it_in_colour(shell: Gateway) -> None:
    """And a pipe all of it, plainly. Numbers are never cut."""
    long = "a-name-that-is-longer-than-any-terminal-" * 2
    shell.cli("account", "create", long, "--plan", "paying", "--postpaid")
    shell.cli("key", "create", long, "--label", "=what a spreadsheet would run")
    shell.cli("key", "revoke", "1")
    shown = on_a_terminal(shell, ["key", "list"], 80)
    assert re.search(r"^1 +a-name…? +sk-fb-.…|^1 +a-name\S+…", shown, re.MULTILINE), shown
    assert re.search(r" \d{4}-\d\d-\d\dT\d\d:\d\dZ ", shown)
    assert "\x1b[90mrevoked" in shown
    assert max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in shown.splitlines()) <= 80
    assert "\x1b" not in on_a_terminal(shell, ["key", "list"], 200, NO_COLOR="1")
    assert long in shell.run("key", "list").stdout
    assert "\x1b" not in shell.run("key", "list").stdout
    assert ",'=what a spreadsheet would run," in shell.run("key", "list", "--csv").stdout
    widest = {
        width: max(map(len, on_a_terminal(shell, ["batch", "--help"], width).splitlines())) for width in (60, 110)
    }
    assert widest[60] <= 60
    assert 80 < widest[110] <= 110


def on_a_terminal(shell: Gateway, arguments: list[str], columns: int, **more: str) -> str:
    """What a command prints on a terminal of so many columns."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (50, columns))
    environment = {**shell.environment, "TERM": "xterm", **more}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        [sys.executable, "-m", "farebox", *arguments],
        cwd=shell.folder,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ):
        os.close(slave)
        said = b""
        with contextlib.suppress(OSError):  # at its end
            while piece := os.read(master, 65536):
                said += piece
    os.close(master)
    return said.decode().replace("\r\n", "\n")
