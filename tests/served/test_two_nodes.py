"""Two nodes on PostgreSQL, before several upstreams: answers that the one kept, and whom the one leaves alone, count at
the other."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest

from farebox.simulator.server import embedded
from farebox.upstream_health import LOOK_SECONDS, WRITE_SECONDS
from tests.gateway import Gateway, Response, eventually
from tests.upstreams import HttpUpstream
from tools.postgres import Cluster

SETTINGS = """
[upstreams.busy]
kind = "openai"
base_url = "{busy}"
models = ["gpt-sim"]
prices = "file"

[upstreams.good]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "LOCAL_KEY"
prices = "file"
order = 1
"""

PRICES = """
[[prices]]
upstream = "{}"
model = "*"
prompt = "0.00001"
answer = "0.00002"
"""


class Nodes(NamedTuple):
    one: Gateway
    other: Gateway
    books: str
    busy: HttpUpstream
    """The upstream that is tried first for `gpt-sim`, and has no room."""


@pytest.fixture(scope="module")
def nodes(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    books = postgres.new_books()
    busy = HttpUpstream({"/models": {"data": [{"id": "gpt-sim"}]}}, [b"{}"], status=503, headers={"retry-after": "99"})
    with embedded() as url, busy.serving():
        made: list[Gateway] = []
        for name in ("one", "other"):
            folder = tmp_path_factory.mktemp(name)
            (folder / "farebox.toml").write_text(SETTINGS.format(busy=busy.url, root=url.removesuffix("/api/v1")))
            (folder / "prices.toml").write_text(PRICES.format("busy") + PRICES.format("good"))
            more = {"LOCAL_KEY": "k", "FAREBOX_PRICES_FILE": "prices.toml", "FAREBOX_DATABASE_URL": books}
            made.append(Gateway(folder, **more))
        with made[0] as one, made[1] as other:
            one.key = other.key = one.new_key("demo", "--plan", "paying", "--prepaid", "5")
            yield Nodes(one, other, books, busy)
            one.audit()


def ask(
    node: Gateway, path: str, *, streamed: bool = False, cache: str = "", model: str = "gpt-sim-vision"
) -> Response:
    said = [{"role": "user", "content": f"Hello from {path}, streamed {streamed}"}]
    body = {"model": model, "messages": said, "max_tokens": 50, "stream": streamed}
    headers = {"authorization": f"Bearer {node.key}", "content-type": "application/json"}
    return node.request("POST", f"/api/v1{path}", body, headers | ({"x-farebox-cache": cache} if cache else {}))


def answers_kept(nodes: Nodes) -> int:
    with psycopg.connect(nodes.books) as db:
        row = db.execute("SELECT count(*) FROM cached_answer").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", ["/chat/completions", "/messages"])
def test_what_one_node_kept_the_other_gives_at_no_cost(nodes: Nodes, path: str, streamed: bool) -> None:
    """As its caller got it, be it translated."""
    kept, orders = answers_kept(nodes), len(nodes.one.orders())
    first = ask(nodes.one, path, streamed=streamed, cache="60")
    assert (first.status, first.headers["x-farebox-cache"]) == (200, "miss")
    eventually(lambda: answers_kept(nodes) == kept + 1)
    again = ask(nodes.other, path, streamed=streamed, cache="60")
    assert (again.status, again.headers["x-farebox-cache"], again.body) == (200, "hit", first.body)
    assert int(again.headers["age"]) >= 0
    for name in ("content-type", "x-generation-id"):
        assert again.headers[name] == first.headers[name]
    if not streamed:
        assert (again.headers["x-farebox-fare-events"], again.headers["x-farebox-fare-usd"]) == ("0", "0")
    (line,) = nodes.other.orders()[orders:]
    assert line["events"] > 0, "the first one paid"
    nodes.other.audit()


def test_whom_one_node_leaves_alone_the_other_does_not_try(nodes: Nodes) -> None:
    """It knows within two seconds: that often it looks, and that soon the first one writes."""
    assert LOOK_SECONDS + WRITE_SECONDS < 2
    for node in nodes.one, nodes.other:
        assert not alone(node).get("busy", False)
    assert ask(nodes.one, "/messages", model="gpt-sim").status == 200
    assert len(nodes.busy.orders) == 1
    eventually(lambda: alone(nodes.other).get("busy", False))
    (listed, _) = nodes.other.cli("upstream", "list")["upstreams"]
    assert [each["model"] for each in listed["left_alone"]] == ["gpt-sim"]
    answer = ask(nodes.other, "/messages", model="gpt-sim")
    assert (answer.status, len(nodes.busy.orders)) == (200, 1)


def alone(node: Gateway) -> dict[str, bool]:
    """Whom a node leaves alone, as it tells it itself."""
    told = node.request("GET", "/metrics").body.decode()
    found = re.findall(r'^farebox_upstream_left_alone\{.*upstream="(\w+)".*\} (\S+)$', told, re.MULTILINE)
    return {name: value == "1.0" for name, value in found}
