"""Videos: jobs that go on after their order was answered. Their holds stand until they have ended, and what they cost
is what the simulated upstream charged, however they end."""

from collections.abc import Iterator
from typing import Any

import pytest
from openrouter import OpenRouter

from tests.gateway import Gateway, Response
from tests.programs import simulator

VIDEO: dict[str, Any] = {"model": "sim/filmer", "prompt": "A red pixel, which waits", "duration": 2}
ASKS = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "600"}
ASKS_NOTHING = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_RECONCILE_SECONDS": "0"}


class World:
    """Two gateways on one database before one upstream: the first asks for what it does not know, and the other does
    nothing by itself."""

    def __init__(self, asking: Gateway, port: int) -> None:
        self.gateway = asking
        self.port = port
        self._keys: dict[str, str] = {}

    def key(self, name: str) -> str:
        if name not in self._keys:
            self._keys[name] = self.gateway.new_key(name, "--plan", "paying", "--prepaid", "20")
        return self._keys[name]

    def order(self, name: str, simulate: str = "", **more: Any) -> Response:
        return order(self.gateway, self.key(name), simulate, **more)

    def get(self, name: str, path: str, **headers: str) -> Response:
        return get(self.gateway, self.key(name), path, **headers)

    def line(self, name: str) -> dict[str, Any]:
        (line,) = self.gateway.orders(name)
        return line


def order(
    gateway: Gateway, key: str, simulate: str = "", headers: dict[str, str] | None = None, **more: Any
) -> Response:
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
    if simulate:
        sent["x-openrouter-simulate"] = simulate
    return gateway.request("POST", "/api/v1/videos", {**VIDEO, **more}, sent)


def get(gateway: Gateway, key: str, path: str, **headers: str) -> Response:
    return gateway.request("GET", f"/api/v1/videos/{path}", headers={"authorization": f"Bearer {key}", **headers})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("videos")
    with simulator() as port, Gateway(folder, "--upstream", f"http://127.0.0.1:{port}/api/v1", **ASKS) as gateway:
        yield World(gateway, port)
        found = gateway.audit()
        assert found["fares_above_their_holds"] == 0


def test_the_sdk_orders_a_video_and_gets_it(world: World) -> None:
    with OpenRouter(server_url=world.gateway.base, api_key=world.key("sdk")) as sdk:
        begun = sdk.video_generation.generate(**VIDEO)
        assert (begun.status, begun.polling_url) == ("pending", f"{world.gateway.base}/videos/{begun.id}")
        job = begun
        while job.status != "completed":
            job = sdk.video_generation.get_generation(job_id=begun.id)
        assert job.unsigned_urls == [f"{world.gateway.base}/videos/{begun.id}/content?index=0"]
        assert job.usage is not None
        assert job.usage.cost == 0.2
        video = sdk.video_generation.get_video_content(job_id=begun.id)
        assert len(video.read()) == 2 * 4096
    line = world.line("sdk")
    assert (line["what"], line["cost_usd"], line["amount_usd"]) == ("fare", "0.2", "-0.2")
    assert line["generation_id"] == job.generation_id
    record = world.gateway.request(
        "GET", f"/v1/generation?id={job.generation_id}", headers={"x-api-key": world.key("sdk")}
    )
    assert record.json["data"]["farebox_fare_usd"] == 0.2
