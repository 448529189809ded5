"""The console's playground: an order of it is an order like every other, and the code that it shows runs as shown."""

import contextlib
import html
import io
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.gateway import Gateway, Response, eventually
from tests.served.test_console import SCRIPT, Browser, hidden, text

SAID = "A question that stands nowhere else"
ANSWER = f"You said: {SAID}"
FORMATS = ("chat", "messages", "responses")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("playground")) as gateway:
        gateway.new_key("one", "--plan", "paying", "--prepaid", "5")
        yield gateway
        gateway.audit()


@pytest.fixture
def player(gateway: Gateway) -> Browser:
    """Somebody with a key of their own of account `one`."""
    return Browser(gateway, gateway.cli("key", "create", "one", "--label", "player")["key"])


def form(player: Browser, **more: str) -> dict[str, str]:
    """The page's form, filled in."""
    page = player.page("/playground")
    once = re.search(r'name="once" value="([^"]*)"', page)
    assert once is not None
    filled = {"format": "chat", "model": "sim/echo", "text": SAID, "system": "", "cap": "50"}
    return {"form": hidden(page, "form"), "once": once[1], **filled, **more}


def send(player: Browser, path: str = "", **more: str) -> Response:
    return send_again(player, form(player, **more), path)


def send_again(player: Browser, filled: dict[str, str], path: str = "") -> Response:
    return player.ask("POST", f"/console/playground{path}", filled)


def fares(gateway: Gateway) -> list[str]:
    return [line["amount_usd"] for line in gateway.orders("one")]


# As every order


@pytest.mark.parametrize("spoken", FORMATS)
def test_an_order_is_answered_and_paid_as_the_keys_own(gateway: Gateway, player: Browser, spoken: str) -> None:
    whole = send(player, format=spoken)
    assert whole.status == 200
    page = text(whole.body.decode())
    assert f"The answer {ANSWER} Fare $0.00001 Cost $0.00000" in page
    streamed = send(player, "/answer", format=spoken, streamed="yes", system="Be brief")
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.headers["cache-control"] == "no-store"
    assert streamed.body.count(b"\ndata: ") > 3
    assert SAID.split()[-1] in streamed.body.decode()
    generation = streamed.headers["x-generation-id"]
    (row,) = player.rows(f"/generations/{generation}.json")
    assert (row["key"], row["state"], row["streamed"], row["fare_usd"]) == ("player", "posted", 1, "0.00001")
    assert player.get(f"/generations/{generation}").headers["location"] == f"/console/orders/{row['order']}"
    assert f'href="/console/orders/{player.rows("/orders.json")[1]["order"]}"' in whole.body.decode()


def test_a_form_that_is_sent_twice_is_one_order(gateway: Gateway, player: Browser) -> None:
    filled = form(player)
    before = len(fares(gateway))
    assert [send_again(player, filled).status for _ in range(2)] == [200, 409]
    assert len(fares(gateway)) == before + 1


def test_what_an_order_lacks_is_said_and_what_was_written_stays(player: Browser) -> None:
    for wrong, said in (
        ({"text": "  "}, "write something"),
        ({"model": ""}, "Choose one"),
        ({"format": "messages", "cap": ""}, "how many tokens at most"),
        ({"model": "sim/ecko"}, "sim/echo"),
    ):
        answer = send(player, **{"system": "Stays here", **wrong})
        assert answer.status in (400, 404), wrong
        assert said in text(answer.body.decode())
        assert "Stays here" in answer.body.decode()
    assert send(player, cap="none").status == 400
    assert send(player, format="speech").status == 400


def test_a_stop_settles_as_any_hang_up(gateway: Gateway, player: Browser) -> None:
    filled = urlencode(form(player, model="sim/echo:token-ms=200,tokens=500", streamed="yes", cap="5000"))
    head = (
        f"POST /console/playground/answer HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nCookie: {player.cookie}\r\n"
        f"Origin: http://127.0.0.1:{gateway.port}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(filled)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall((head + filled).encode())
        got = b""
        while b"data: " not in got:
            got += connection.recv(4096)
    eventually(lambda: player.rows("/orders.json")[0]["state"] == "open")
    order = player.rows("/orders.json")[0]
    assert "the caller hung up before the answer&#39;s end" in player.page(f"/orders/{order['order']}")


# Limits and money


def test_a_keys_limits_hold_here_too(gateway: Gateway) -> None:
    key = gateway.cli("key", "create", "one", "--label", "narrow")["key"]
    gateway.cli("key", "limit", key, "models=sim/echo", "requests_per_minute=1")
    narrow = Browser(gateway, key)
    other = send(narrow, model="sim/echo-pro")
    assert other.status == 403
    assert "the key's limits does not include the model `sim/echo-pro`" in text(other.body.decode())
    assert [send(narrow, "/answer").status for _ in range(2)] == [200, 429]


def test_who_has_no_money_is_told_what_to_do(gateway: Gateway) -> None:
    poor = Browser(gateway, gateway.new_key("poor", "--plan", "paying", "--prepaid", "0.00001"))
    answer = send(poor, model="sim/echo-pro", text="x" * 2000)
    assert answer.status == 402
    page = text(answer.body.decode())
    assert "$0.00001 is available" in page
    assert re.search(r'id="short">.*have money paid in', answer.body.decode())
    relayed = send(poor, "/answer", model="sim/echo-pro", text="x" * 2000)
    assert relayed.status == 402
    assert "is available" in relayed.error["message"]
    assert gateway.orders("poor") == []


def test_a_management_key_orders_nothing_and_is_told_so(gateway: Gateway) -> None:
    before = len(fares(gateway))
    for more in ((), ("--account", "one")):
        manager = Browser(gateway, gateway.cli("management-key", "create", *more)["key"])
        assert "A management key orders nothing" in text(manager.page("/playground"))
        for path in ("", "/answer"):
            assert send(manager, path).status == 403
        assert "sim/echo" in send(manager, "/code").body.decode()
    assert len(fares(gateway)) == before


# Attacks


def test_no_other_page_places_an_order(gateway: Gateway, player: Browser) -> None:
    """CSRF, of what spends money: nothing but the console's own page, in this session, places one."""
    filled, before = form(player), len(fares(gateway))
    other = Browser(gateway, gateway.new_key("csrf", "--plan", "paying", "--prepaid", "1"))
    for path in ("", "/answer", "/code"):
        for fields, headers in (
            (filled, {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}),
            (filled, {"origin": "null", "sec_fetch_site": ""}),
            (filled, {"origin": "", "sec_fetch_site": ""}),
            (filled, {"content_type": "text/plain"}),
            ({**filled, "form": ""}, {}),
            ({**filled, "form": form(other)["form"]}, {}),
            (filled, {"cookie": "farebox_console=" + "x" * 43}),
            (filled, {"cookie": "", "authorization": f"Bearer {gateway.key}"}),
        ):
            found = player.ask("POST", f"/console/playground{path}", fields, **headers)
            assert found.status in (400, 401, 403), (path, headers)
    for path in ("/answer", "/code"):
        assert player.get(f"/playground{path}").status == 405
    assert send_again(player, filled, "/answer.json").status == 404
    assert send_again(player, filled, ".json").status == 404
    assert len(fares(gateway)) == before


def test_no_form_says_whose_money_it_is(gateway: Gateway, player: Browser) -> None:
    """Another account's key, account and generation, in every field that may be tried."""
    theirs = Browser(gateway, gateway.new_key("theirs", "--plan", "paying", "--prepaid", "1"))
    generation = send(theirs, "/answer").headers["x-generation-id"]
    key, account = theirs.rows("/keys.json")[0]["id"], theirs.rows("/accounts.json")[0]["id"]
    before = len(fares(gateway))
    taken = {"key": str(key), "key_id": str(key), "account": "theirs", "account_id": str(account)}
    assert send(player, **taken).status == 200
    assert len(fares(gateway)) == before + 1
    assert len(gateway.orders("theirs")) == 1
    for path in (f"/generations/{generation}", f"/generations/{generation}.json"):
        assert player.get(path).status == 404


def test_what_models_and_upstreams_say_is_text(player: Browser) -> None:
    """XSS: by an answer, by an upstream's refusal, by one of ours, by what was written before."""
    for more in (
        {"text": SCRIPT, "system": f"</textarea>{SCRIPT}"},
        {"model": f"sim/echo:{SCRIPT}"},
        {"model": SCRIPT},
        {"model": "sim/echo:html,status=503"},
        {"cap": SCRIPT},
    ):
        for path in ("", "/code"):
            page = send(player, path, **more).body
            assert b"<script>" not in page, (path, more)
            assert page.count(b"</textarea>") in (0, 2)
        answer = send(player, "/answer", **more)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        if answer.headers["content-type"].startswith("text/html"):
            assert b"<script>" not in answer.body


def test_nothing_that_was_said_is_kept(gateway: Gateway, player: Browser) -> None:
    """Neither in the books nor in the log (which every test looks at), whatever the key says of its answers; and no key
    stands in a page."""
    gateway.cli("key", "cache", str(player.rows("/keys.json")[0]["hint"]), "600")
    for spoken in FORMATS:
        for path in ("", "/answer", "/code"):
            assert b"sk-fb-" not in re.sub(rb"sk-fb-\w{4}\.\.\.", b"", send(player, path, format=spoken).body)
    gateway.said.add(SAID)
    for kept in (gateway.folder / "data").rglob("*"):
        assert not kept.is_file() or SAID.encode() not in kept.read_bytes(), kept


def test_what_is_kept_of_an_answer_is_not_shown_with_its_order(gateway: Gateway, player: Browser) -> None:
    key = gateway.cli("key", "create", "one", "--label", "keeps")["key"]
    said = "What an account lets be kept"
    asked = {"model": "sim/echo", "input": said, "store": True}
    kept = gateway.request("POST", "/v1/responses", asked, {"x-api-key": key, "content-type": "application/json"})
    assert said in gateway.request("GET", f"/v1/responses/{kept.json['id']}", headers={"x-api-key": key}).body.decode()
    order = player.rows("/orders.json?state=posted")[0]
    assert order["key"] == "keeps"
    assert said not in player.page(f"/orders/{order['order']}")


# Models


def test_models_say_what_they_can_do_and_what_an_order_would_hold(gateway: Gateway, player: Browser) -> None:
    asked = "/models.json?prompt_tokens=1000&answer_tokens=5000"
    by_name = {row["model"]: row for row in player.rows(asked)}
    assert by_name["sim/echo"]["abilities"] == "text to text, tools"
    cheapest = [row["model"] for row in player.rows(f"{asked}&sort=cost")]
    assert set(cheapest) == set(by_name)
    costs = [float(str(by_name[name]["order_cost_usd"])) for name in cheapest]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    seeing = player.rows("/models.json?search=image+tools")
    assert seeing
    assert all("image" in str(row["abilities"]) and "tools" in str(row["abilities"]) for row in seeing)
    page = player.page("/models")
    assert 'href="/console/playground?model=sim%2Fecho"' in page
    assert "model=sim%2Fembedder" not in page
    # A manager of all accounts asks by any plan; `free` lets an answer have 2,048 tokens, however many are asked for.
    manager = Browser(gateway, gateway.cli("management-key", "create")["key"])
    fares = {
        plan: manager.rows(f"/models.json?search=sim/echo-pro&answer_tokens={tokens}&plan={plan}")[0]["order_fare_usd"]
        for plan, tokens in (("", "2048"), ("paying", "2048"), ("free", "5000"))
    }
    assert fares[""] == fares["paying"] == "0.03372"
    assert fares["free"] == "0.3372"
    assert manager.get("/models?plan=none").status == player.get("/models?sort=none").status == 400


# The same as code


def shown(page: str) -> dict[str, str]:
    """The code on a page, by its names."""
    found = re.findall(r"<summary>([^<]+)</summary><button[^>]+>Copy</button><pre[^>]+>(.*?)</pre>", page, re.DOTALL)
    assert found
    return {html.unescape(name): html.unescape(code) for name, code in found}


def test_the_code_that_is_shown_runs_as_shown(gateway: Gateway, player: Browser, node: Path, tmp_path: Path) -> None:
    """Of each format, whole and streamed, and beside a new key."""
    said = 'It\'s "quoted" \\ twice\nand $HOME goes on, `so`: \N{GREEK SMALL LETTER ALPHA}'
    runs: list[tuple[str, str]] = []
    for spoken in FORMATS:
        for streamed in ("", "yes"):
            answer = send(player, "/code", format=spoken, text=said, system="Be brief", streamed=streamed)
            runs += [(f"{name} {spoken} {streamed}", code) for name, code in shown(answer.body.decode()).items()]
    assert len(runs) == 22
    key = gateway.cli("key", "create", "one", "--label", "runs code")["key"]
    for name, code in runs:
        assert "YOUR_KEY" in code
        run_one(name, code.replace("YOUR_KEY", key), said, tmp_path)
    manager = Browser(gateway, gateway.cli("management-key", "create")["key"])
    made = {"account": "one", "label": "new"}
    once = hidden(manager.page(f"/keys/new?{urlencode(made)}"), "once")
    page = manager.post("/keys", {**made, "once": once}).body.decode()
    for name, code in shown(page).items():
        run_one(f"new {name}", code.replace("MODEL", "sim/echo"), "Hello", tmp_path)
    (tmp_path / "node_modules").symlink_to(node / "node_modules")
    scripts = sorted(tmp_path.glob("*.mjs"))
    assert len(scripts) == 11
    every = "".join(f'await import("./{each.name}");\nconsole.log("--");\n' for each in scripts)
    (tmp_path / "all.mjs").write_text(every)
    done = subprocess.run(["node", "all.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.strip().removesuffix("--").split("--\n")
    assert [each.strip() for each in answers[:3]] == ["You said: Hello"] * 3
    assert {each.strip() for each in answers[3:]} == {f"You said: {said}"}


def run_one(name: str, code: str, said: str, folder: Path) -> None:
    """Run curl's and Python's; TypeScript's is left in the folder, to be run all at once."""
    if name.endswith("curl") or "curl " in name:
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert "said" in done.stdout, name
        assert '"message":"' not in done.stdout, name
    elif "Python" in name:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), {})
        assert printed.getvalue().strip() == f"You said: {said}", name
    else:
        number = len(list(folder.glob("*.mjs")))
        prefix = "a" if name.startswith("new ") else "b"
        (folder / f"{prefix}{number:02}.mjs").write_text(code)
