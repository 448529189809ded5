"""Pictures of the console for the site: a gateway of its own on the simulator, some orders, Debian's Chromium.

python use_console.py FOLDER CHROMIUM PYTHON, in an empty folder: that Python has Farebox, this one Playwright.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

START_SECONDS = 120
SIZE = {"width": 1100, "height": 720}
PAGES = {"overview": "", "orders": "/orders", "order": "{order}", "statement": "/statement?account_id={account}"}

ORDERED = (
    ("ann", "laptop", "sim/echo", 7),
    ("ann", "agent", "sim/echo-pro", 5),
    ("bob", "laptop", "sim/reasoner", 9),
    ("bob", "search", "sim/embedder", 4),
)


def farebox(python: str, *arguments: str) -> dict[str, str]:
    command = [python, "-m", "farebox", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def order(site: str, key: str, model: str, prompt: str) -> None:
    path, what = ("embeddings", "input") if model == "sim/embedder" else ("chat/completions", "messages")
    body = {"model": model, what: prompt if what == "input" else [{"role": "user", "content": prompt}]}
    head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    sent = urllib.request.Request(f"{site}/api/v1/{path}", json.dumps(body).encode(), head)
    with urllib.request.urlopen(sent, timeout=60) as answer:
        answer.read()


def started(log: Path) -> str:
    """Where the gateway serves, as soon as it does."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if found := re.search(r"on (http://\S+)/api/v1", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the gateway did not start:\n{log.read_text()}")


def fill(python: str, site: str) -> str:
    """People, keys and orders; a management key."""
    for name in dict.fromkeys(each[0] for each in ORDERED):
        farebox(python, "account", "create", name, "--plan", "paying", "--prepaid", "20")
    for name, label, model, times in ORDERED:
        key = farebox(python, "key", "create", name, "usd_per_month=5", "--label", label)["key"]
        for number in range(times):
            order(site, key, model, "Where did the money go? " * (number * 20 + 1))
    return farebox(python, "management-key", "create", "--label", "Operations")["key"]


def take(browser: Browser, folder: Path, site: str, manager: str) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_context(color_scheme=scheme, viewport=SIZE).new_page()
        page.goto(f"{site}/console")
        page.fill("#key", manager)
        page.click("form button")
        page.wait_for_url(f"{site}/console")
        page.goto(f"{site}/console/accounts")
        account = page.get_attribute("tbody a:text-is('ann')", "href").rpartition("/")[2]
        page.goto(f"{site}/console/orders")
        first = page.get_attribute("tbody a", "href").removeprefix("/console")
        for name, path in PAGES.items():
            shown = page.goto(f"{site}/console{path.format(order=first, account=account)}")
            assert shown.ok, f"{shown.url}: {shown.status}"
            page.screenshot(path=folder / f"{name}-{scheme}.png")


def main(folder: str, chromium: str, python: str) -> None:
    log = Path("serve.log")
    with log.open("w") as written:
        serve = subprocess.Popen([python, "-um", "farebox", "serve", "--port", "0"], stdout=written, stderr=written)
    try:
        site = started(log)
        manager = fill(python, site)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else []
            )
            take(browser, Path(folder), site, manager)
            browser.close()
    finally:
        serve.terminate()
        serve.wait(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
