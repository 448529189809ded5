"""The console in a real browser: each page light and dark, wide and narrow, looked at by axe; and without JavaScript.
Its argument is one of PARTS.

With a folder in SHOTS, a picture of each page is left there.
"""

import faulthandler
import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SITE = os.environ["BASE"].removesuffix("/api/v1") + "/console"
KEY, MANAGER = os.environ["KEY"], os.environ["MANAGER"]
AXE = (Path(__file__).parent / "browser" / "node_modules" / "axe-core" / "axe.min.js").read_text()
SHOTS = os.environ.get("SHOTS")

WAIT_MS = 120_000
"""How long a page may take: this is no measurement, and there may be much else to do."""

HUNG_SECONDS = 300
"""Some calls of a browser have no deadline of their own. One that is not back after so long ends this, and is shown."""

LOOK = """axe.run(document).then(found => found.violations.map(
  each => each.id + ": " + each.help + " " + each.nodes.map(node => node.html.slice(0, 200)).join(" | ")))"""

MANY_ROWS = """for (let n = 0; n < 60; n++) {
  const body = document.querySelector("tbody");
  body.append(body.rows[0].cloneNode(true));
}"""

PAGES = (
    "",
    "/spent",
    "/live",
    "/orders",
    "/orders/{order}",
    "/statement?account_id=2",
    "/invoice?account_id=2",
    "/statement?account_id=2&end_user=ann",
    "/spent?by=end_user",
    "/end-users?account_id=2",
    "/end-users?account_id=2&end_user=ann",
    "/keys",
    "/keys/1",
    "/keys/new?account=demo&label=Build+server&limit=5",
    "/accounts",
    "/accounts/2",
    "/accounts/2/top-up?amount=5",
    "/keys/1/change?do=limit&usd_per_day=1&models=sim/*",
    "/accounts/2/change?do=close",
    "/accounts/new?name=acme&plan=paying&terms=prepaid&prepaid=5",
    "/models",
    "/playground?model=sim/echo",
    "/reconcile",
    "/reconcile/{open}",
    "/reconcile/{open}?verdict=cost&cost=0.00123&reason=They+told+us",
    "/alerts",
    "/trail",
    "/nowhere",
)


@contextmanager
def visit(browser: Browser, **how: object) -> Iterator[Page]:
    """A page in a new browser, at which nothing may go wrong."""
    faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
    context = browser.new_context(**how)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda sent: wrong.append(sent.url) if not sent.url.startswith(SITE) else None)
    yield page
    context.close()
    # A page that says that something is not there, or was done before, is an error to a browser and no fault.
    assert not [each for each in wrong if "404" not in each and "409" not in each], wrong


def follow(page: Page, selector: str) -> None:
    """Click what leads to another page, and wait until that is there: a page that is asked, or closed, while another
    takes its place may never answer (Playwright's issue 42068)."""
    with page.expect_navigation():
        page.click(selector)


def sign_in(page: Page, key: str) -> None:
    page.goto(SITE)
    look(page, "sign-in")
    page.fill("#key", key)
    follow(page, "form button")
    assert page.url == SITE


def sign_in_without(page: Page, key: str) -> None:
    """As `sign_in`, without axe, which is a script."""
    page.goto(SITE)
    page.fill("#key", key)
    follow(page, "form button")
    assert page.url == SITE


def look(page: Page, name: str) -> None:
    """What is wrong with a page as it stands, which must be nothing."""
    faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
    cdp = page.context.new_cdp_session(page)  # beside the page's policy, which lets no foreign script in
    cdp.send("Runtime.evaluate", {"expression": AXE})
    found = cdp.send("Runtime.evaluate", {"expression": LOOK, "awaitPromise": True, "returnByValue": True})
    assert found["result"]["value"] == [], (name, found["result"]["value"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
    if SHOTS:
        is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        kind = "dark" if is_dark else "light"
        shot = re.sub(r"\W+", "-", name.partition("?")[0]).strip("-") or "overview"
        page.screenshot(path=Path(SHOTS) / f"{shot}-{kind}-{page.viewport_size['width']}.png", full_page=True)


def orders(page: Page) -> dict[str, str]:
    """The numbers of an order, and of one that is open."""
    named = {}
    for name, path in (("order", "/orders"), ("open", "/reconcile")):
        page.goto(SITE + path)
        named[name] = page.get_attribute("tbody a", "href").rpartition("/")[2]
    return named


def every_page(browser: Browser, scheme: str, width: int) -> None:
    with visit(browser, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        sign_in(page, MANAGER)
        named = orders(page)
        for path in PAGES:
            page.goto(SITE + path.format(**named))
            for each in page.query_selector_all("main details"):
                each.evaluate("part => { part.open = true }")
            look(page, path)


def by_keyboard(browser: Browser) -> None:
    """The first step leads past what stands on every page; each link and button can be reached, and is seen to be."""
    with visit(browser) as page:
        sign_in(page, MANAGER)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def copying(browser: Browser) -> None:
    with visit(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        sign_in(page, MANAGER)
        page.goto(f"{SITE}/keys/new?account=demo&label=Copied")
        follow(page, "text=Make the key")
        look(page, "made-key")
        page.click("text=Copy the key")
        page.wait_for_selector("text=Copied >> visible=true")
        assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#key")
        page.reload()
        assert "shown once" in page.inner_text("main")


def printed(browser: Browser) -> None:
    """An invoice as a PDF: what belongs to the console is not on it, a table's head is on each page."""
    with visit(browser, color_scheme="dark") as page:
        sign_in(page, KEY)
        page.goto(f"{SITE}/invoice")
        page.emulate_media(media="print")
        seen = page.evaluate("document.body.innerText")
        assert "All use" in seen
        for said in ("Sign out", "Show the month", "Your browser prints", "CSV"):
            assert said not in seen, said
        assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        page.evaluate(MANY_ROWS)
        for paper in ("A4", "Letter"):
            made = page.pdf(format=paper)
            assert made.startswith(b"%PDF-")
            assert len(re.findall(rb"/Type\s*/Page\b", made)) >= 2
            if SHOTS:
                (Path(SHOTS) / f"invoice-{paper}.pdf").write_bytes(made)


def order(simulate: str) -> None:
    """Place one, as any client does."""
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    sent = {**headers, "x-openrouter-simulate": simulate}
    urllib.request.urlopen(
        urllib.request.Request(f"{os.environ['BASE']}/chat/completions", json.dumps(body).encode(), sent), timeout=60
    ).read()


def focused(page: Page) -> str:
    """The row that has the focus."""
    return page.evaluate("document.activeElement.closest('tr')?.id")


def as_orders_come(browser: Browser) -> None:
    """Live goes on by itself as an order comes, and as one that is open is decided on; it can be paused, and a row
    keeps the focus, whether it stays or changes."""
    with visit(browser) as page:
        sign_in(page, MANAGER)
        page.goto(f"{SITE}/live?account=demo")
        page.wait_for_selector("text=as it comes")
        assert not page.is_visible("text=Reload")
        order("usage=missing")
        page.wait_for_selector("tbody tr:first-child .state-open")
        placed = page.get_attribute("tbody tr:first-child", "id")
        page.focus(f"#{placed} th a")
        order("cost=0.00321")
        page.wait_for_selector("text=$0.00321 >> visible=true")
        assert focused(page) == placed
        # One that is under way stands before it, and goes.
        with ThreadPoolExecutor() as meanwhile:
            answer = meanwhile.submit(order, "first-token-ms=3000,cost=0.00432")
            page.wait_for_selector("tbody tr:first-child .state-pending")
            assert focused(page) == placed
            answer.result()
        page.wait_for_selector("text=$0.00432 >> visible=true")
        assert focused(page) == placed
        look(page, "live-as-they-come")
        with visit(browser) as other:
            sign_in(other, MANAGER)
            other.goto(f"{SITE}/reconcile/{placed.removeprefix('o-')}?verdict=cost&cost=0.00456&reason=They+told+us")
            follow(other, "main form[method=post] button")
            assert "/orders/" in other.url
        page.wait_for_selector(f"#{placed} .state-posted")
        assert "$0.00456" in page.inner_text(f"#{placed}")
        assert focused(page) == placed
        page.click("text=Pause")
        order("cost=0.00654")
        page.wait_for_timeout(100)
        assert "paused" in page.inner_text("[data-part=as-of]")
        page.click("text=Go on")
        page.wait_for_selector("text=$0.00654 >> visible=true")
        follow(page, "text=Sign out")


def without_javascript(browser: Browser) -> None:
    """All but the copy button works: sign in, look, make a key, sign out."""
    with visit(browser, java_script_enabled=False) as page:
        sign_in_without(page, MANAGER)
        page.goto(f"{SITE}/live")
        order("cost=0.00789")
        follow(page, "text=Reload")
        assert "$0.00789" in page.inner_text("tbody")
        assert not page.is_visible("text=Pause")
        page.goto(f"{SITE}/keys")
        page.click("summary")
        page.fill("#account", "demo")
        page.fill("#label", "Without a script")
        follow(page, "text=Look at it first")
        follow(page, "text=Make the key")
        assert page.inner_text("#key").startswith("sk-fb-")
        assert not page.is_visible("text=Copy the key")
        follow(page, "text=Sign out")
        assert page.url == f"{SITE}/sign-in"


FORMATS = ("chat", "messages", "responses")
MARKUP = "<img src=x onerror=alert(1)><b>Hello</b>"
SLOW = "sim/echo:token-ms=100,tokens=400"


def playing(browser: Browser) -> None:
    """An order streamed and one whole in each format, light and dark; a stop; a refusal; the code beside it."""
    for scheme, width in (("light", 1200), ("dark", 360)):
        with visit(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
            sign_in(page, KEY)
            page.goto(f"{SITE}/models")
            follow(page, "a[href$='model=sim%2Fecho']")
            for spoken in FORMATS:
                for streamed in (True, False):
                    page.select_option("#format", spoken)
                    page.fill("#text", f"{MARKUP} {spoken} {streamed}")
                    page.set_checked("[name=streamed]", streamed)
                    page.click("#send")
                    page.wait_for_selector('#order:has-text("The order\'s page")')
                    assert page.inner_text("#said") == f"You said: {MARKUP} {spoken} {streamed}"
                    assert page.inner_text("#fare") == "$0.00001"
                    assert re.fullmatch(r"\d+\.\d{3} s", page.inner_text("#first"))
                    assert ("data: " in page.text_content("#raw")) is streamed
                    assert page.query_selector("#said *") is None
                    code = page.text_content("#code-1")
                    assert spoken != "messages" or "/messages" in code
                    assert ('"stream": true' in code) is streamed
            look(page, f"playground-{scheme}")
            order = page.get_attribute("#order", "href")
            page.goto(SITE.removesuffix("/console") + order)
            assert "$0.00001" in page.inner_text("main")


def stopping(browser: Browser) -> None:
    """A stop, and a tab that is left, hang up; what is refused is said."""
    with visit(browser) as page:
        sign_in(page, KEY)
        page.goto(f"{SITE}/playground")
        for leave in (lambda: page.click("#stop"), lambda: page.goto(f"{SITE}/orders")):
            page.fill("#model", SLOW)
            page.fill("#cap", "5000")
            page.click("#send")
            page.wait_for_selector("#said:not(:empty)")
            leave()
            page.goto(f"{SITE}/orders")
            for _ in range(500):
                if page.inner_text("tbody .state") != "pending":
                    break
                page.reload()
            assert page.inner_text("tbody .state") == "open"
            page.goto(f"{SITE}/playground")
        page.fill("#model", "sim/ecko")
        page.click("#send")
        page.wait_for_selector("#problem:has-text('sim/echo')")
        page.click("#as-code")
        page.wait_for_selector("#code:has-text('sim/ecko')")
        assert not page.is_visible("#answered")


def playing_without_javascript(browser: Browser) -> None:
    with visit(browser, java_script_enabled=False) as page:
        sign_in_without(page, KEY)
        page.goto(f"{SITE}/playground?model=sim/echo&format=messages")
        page.fill("#text", MARKUP)
        follow(page, "#send")
        assert page.inner_text("#said") == f"You said: {MARKUP}"
        assert page.inner_text("#fare") == "$0.00001"
        follow(page, "#as-code")
        assert "/messages" in page.inner_text("#code-1")


def alerting(browser: Browser) -> None:
    """Somebody is told, is sent a test, and is told no more."""
    with visit(browser, viewport={"width": 360, "height": 800}) as page:
        sign_in(page, MANAGER)
        page.goto(f"{SITE}/alerts")
        page.fill("#url", "https://localhost/hooks/secret")
        page.fill("#label", "Night shift")
        page.check("text=an account has little left")
        follow(page, "text=Look at it first")
        look(page, "new-alert")
        follow(page, "text=Add it")
        look(page, "made-alert")
        assert page.inner_text("#secret").startswith("whsec_")
        follow(page, "text=Send a test")
        look(page, "tested-alert")
        assert "within the gateway's own network" in page.inner_text("main")
        follow(page, "text=To the alerts")
        look(page, "alerts-with-one")
        assert "hooks/secret" not in page.content()
        page.click("text=Remove it")
        follow(page, "text=Remove Night shift")
        assert "Night shift" not in page.inner_text("main")


def signed_in_from_elsewhere(browser: Browser) -> None:
    """A page elsewhere cannot show the console in a frame, nor send one of its forms."""
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, KEY)
    page.route(
        "http://evil.example/",
        lambda route: route.fulfill(
            body=f"""
        <iframe src="{SITE}"></iframe>
        <form method="post" action="{SITE}/sign-out"><button>Win a prize</button></form>""",
            content_type="text/html",
        ),
    )
    page.goto("http://evil.example/")
    framed = page.frames[1]
    assert "Spent" not in framed.content()
    follow(page, "text=Win a prize")
    assert "elsewhere" in page.inner_text("main")
    page.goto(SITE)
    assert page.url == SITE
    context.close()


def pages(scheme: str) -> None:
    for width in (1200, 360):
        every_page(chromium, scheme, width)
        print(f"ok {len(PAGES)} pages, {scheme}, {width} px wide: axe finds nothing")


def uses() -> None:
    for tried in (
        by_keyboard,
        copying,
        printed,
        as_orders_come,
        alerting,
        without_javascript,
        playing,
        stopping,
        playing_without_javascript,
        signed_in_from_elsewhere,
    ):
        tried(chromium)
        print(f"ok {tried.__name__}")


PARTS = {"light": partial(pages, "light"), "dark": partial(pages, "dark"), "uses": uses}

with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
    PARTS[sys.argv[1]]()
    chromium.close()
