"""A short run of `make chaos`: hang-ups, faults and kills together leave books that agree with the upstream's."""

from pathlib import Path

import pytest

from tests.programs import Program
from tools.chaos import MINUTE_CAP, MONEY_CAP_NANOS, Chaos
from tools.chaos_upstreams import SeveralUpstreams
from tools.crash_points import POINTS
from tools.postgres import Cluster

DEATHS = len(POINTS) // 2
"""At points of an order's path; `test_crash_points` dies at each of them."""

POSTED = 51
"""So few at least are served to their end, and charged."""


def forked(port: int, environment: dict[str, str], printed: Path) -> Program:
    return Program("farebox", ["serve", "--port", str(port)], printed.parent, environment, printed, printed)


@pytest.mark.parametrize("workers", [1, 2])
def test_after_kills_hang_ups_and_faults_the_books_agree_with_the_upstreams(tmp_path: Path, workers: int) -> None:
    outcome = Chaos(tmp_path, workers, seed=workers, start=forked).run(
        orders=300, kills=2, deaths=DEATHS, posted=POSTED, joined=1
    )
    assert outcome.differences == []
    assert (outcome.kills, outcome.deaths.total()) == (2, DEATHS)
    assert outcome.answers > 50
    assert outcome.joined
    assert outcome.states["posted"] >= POSTED
    assert outcome.states["pending"] == 0
    assert MINUTE_CAP / 4 < outcome.peak_per_minute <= MINUTE_CAP
    assert 0 < outcome.spent_nanos <= MONEY_CAP_NANOS


def test_so_they_do_with_each_of_several_upstreams_of_three_kinds(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, workers=2, seed=4, start=forked, world=SeveralUpstreams())
    outcome = chaos.run(orders=300, kills=2, deaths=3, posted=POSTED)
    assert outcome.differences == []
    assert (outcome.kills, outcome.deaths.total()) == (2, 3)
    assert set(outcome.served) == {"router-one", "router-two", "gpt", "claude"}
    assert outcome.fallbacks
    assert outcome.answers > 20
    assert outcome.states["posted"] >= POSTED
    assert outcome.states["pending"] == 0


def test_so_they_do_on_several_nodes_whose_database_dies(tmp_path: Path, postgres: Cluster) -> None:
    postgres.stop()
    postgres.start(is_durable=True)
    chaos = Chaos(tmp_path, workers=1, seed=3, nodes=3, cluster=postgres, start=forked)
    outcome = chaos.run(orders=300, kills=3, deaths=DEATHS, database_kills=2, posted=POSTED)
    assert outcome.differences == []
    assert (outcome.kills, outcome.database_kills, outcome.deaths.total()) == (3, 2, DEATHS)
    assert outcome.answers > 50
    assert outcome.states["posted"] >= POSTED
    assert outcome.states["pending"] == 0
    assert MINUTE_CAP / 4 < outcome.peak_per_minute <= MINUTE_CAP
