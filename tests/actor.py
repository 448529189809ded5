"""A real Actor for tests: the command of its image, in a process of its own, with the environment of a run."""

import os
import signal
import time
from pathlib import Path
from typing import Any, Self

from tests.apify_platform import Platform
from tests.gateway import Gateway, clean_environment
from tests.programs import Program
from tools.postgres import free_port

START_SECONDS = 30


def run_environment(platform: Platform, run: dict[str, Any], token: str, **more: str) -> dict[str, str]:
    """What the platform tells a run of its environment."""
    return {
        "APIFY_IS_AT_HOME": "1",
        "APIFY_TOKEN": token,
        "APIFY_API_BASE_URL": f"{platform.url}/",
        "APIFY_USER_ID": run["userId"],
        "APIFY_USER_IS_PAYING": "1",
        "ACTOR_RUN_ID": run["id"],
        "ACTOR_ID": run["actId"],
        "ACTOR_DEFAULT_DATASET_ID": run["defaultDatasetId"],
        "ACTOR_DEFAULT_KEY_VALUE_STORE_ID": run["defaultKeyValueStoreId"],
        "ACTOR_INPUT_KEY": "INPUT",
        "ACTOR_EVENTS_WEBSOCKET_URL": f"{platform.url.replace('http', 'ws')}/events",
        "ACTOR_STANDBY_URL": platform.standby_url,
        "ACTOR_MAX_TOTAL_CHARGE_USD": "",
        "ACTOR_TIMEOUT_AT": "",
        "APIFY_META_ORIGIN": "API",
        "OPENROUTER_API_KEY": "sk-or-test",
        **more,
    }


class Actor(Gateway):
    """`python -m farebox.actor` in a folder, as a server."""

    def __init__(self, folder: Path, **environment: str) -> None:
        super().__init__(folder)
        self.port = free_port()
        kept = {
            name: value
            for name, value in clean_environment().items()
            if not name.startswith(("APIFY_", "ACTOR_", "CRAWLEE_"))
        }
        self.environment = {
            **kept,
            "ACTOR_WEB_SERVER_PORT": str(self.port),
            "APIFY_META_ORIGIN": "STANDBY",
            "PYTHONUNBUFFERED": "1",
            "FAREBOX_DATABASE_URL": "sqlite:///data/farebox.db",
            **environment,
        }

    def begin(self) -> None:
        self.copy_books()
        self.log = self.folder / f"actor-{time.monotonic_ns()}.log"
        self.log.touch()
        self.process = Program("farebox.actor", [], self.folder, self.environment, self.log, self.log)

    def start(self) -> Self:
        self.begin()
        until = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert time.monotonic() < until, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return self

    def is_ready(self) -> bool:
        try:
            answer = self.request("GET", "/", headers={"x-apify-container-server-readiness-probe": "1"})
        except OSError:
            return False
        return (answer.status, answer.body) == (200, b"ok")

    def orders_of(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """What its own books say of a run's orders."""
        return self.orders(f"run {run['id']}")

    def finish(self, seconds: float = 60) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(seconds)
        self._told()
        return code

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)
