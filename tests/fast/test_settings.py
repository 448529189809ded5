"""Settings: a name in the environment is that of a setting, or refused."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from farebox.settings import OTHER_VARIABLES, BadSettings, Settings, load

ROOT = Path(__file__).parents[2]


def variables_in_the_code() -> set[str]:
    """Every variable that the code names whole."""
    texts = [path.read_text() for path in ROOT.glob("src/**/*.py")]
    return {name for text in texts for name in re.findall(r'"(FAREBOX_[A-Z_]*[A-Z])"', text)}


def test_every_variable_that_the_code_reads_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = variables_in_the_code()
    assert set(OTHER_VARIABLES) <= named | {"FAREBOX_KEY"}
    settings = {f"FAREBOX_{field.upper()}" for field in Settings.__struct_fields__}
    assert named <= settings | set(OTHER_VARIABLES)
    (tmp_path / "farebox.toml").write_text("")
    for name in OTHER_VARIABLES:
        monkeypatch.setenv(name, "farebox.toml")
    assert load().port == 8080


def test_all_that_are_misspelt_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAREBOX_SPOLL", "x")
    monkeypatch.setenv("FAREBOX_DATABASE_URI", "sqlite:///x.db")
    with pytest.raises(BadSettings) as refused:
        load()
    assert str(refused.value).splitlines() == [
        "FAREBOX_DATABASE_URI: there is no such setting; did you mean FAREBOX_DATABASE_URL?",
        "FAREBOX_SPOLL: there is no such setting; did you mean FAREBOX_SPOOL?",
    ]


def test_a_service_called_farebox_in_kubernetes_is_no_misspelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAREBOX_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("FAREBOX_SERVICE_PORT_HTTP", "8080")
    monkeypatch.setenv("FAREBOX_PORT_8080_TCP_ADDR", "10.0.0.1")
    assert load().port == 8080


def test_what_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "farebox.toml").write_text(
        'port = 1\nallowed_hosts = ["a"]\nhost = "file"\nassumed_picture_usd = 0.3\n'
    )
    said = {
        "FAREBOX_PORT": " 8081 ",
        "farebox_workers": "3",
        "FAREBOX_HOST": "",
        "FAREBOX_ALLOWED_HOSTS": "b, c,",
        "FAREBOX_CONSOLE": "Off",
        "FAREBOX_METRICS_TOKEN": "hush",
        "FAREBOX_PLANS": '{"resale": {"multiplier": "1.7"}}',
    }
    for name, text in said.items():
        monkeypatch.setenv(name, text)
    settings = load(workers=4, upstream_url=None)
    assert (settings.port, settings.workers, settings.host) == (8081, 4, "file")
    assert (settings.allowed_hosts, settings.console) == (["b", "c"], False)
    assert settings.assumed_picture_usd == Decimal("0.3")
    assert settings.plans["resale"].multiplier == Decimal("1.7")
    assert settings.metrics_token is not None
    assert settings.metrics_token.reveal() == "hush"
    assert "hush" not in repr(settings)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "farebox.toml").write_text(
        'prot = 1\nworkers = 0\nassumed_picture_usd = "-1"\nhang_up = "wait"\nplans = 7\nallowed_hosts = ["a", 7]\n'
        '[guards.a]\nseconds = 60\nkidn = "patterns"\n[upstreams.b]\nprices = "free"\n'
        "[upstreams.b.per_model.m]\nzdr = 7\n"
    )
    monkeypatch.setenv("FAREBOX_ORDERS_MAX", "many")
    monkeypatch.setenv("FAREBOX_CONSOLE", "maybe")
    with pytest.raises(BadSettings) as refused:
        load(port="x")
    assert sorted(str(refused.value).splitlines()) == sorted(
        [
            "--port: Expected `int`, got `str` (it is 'x')",
            "FAREBOX_CONSOLE: Expected `bool`, got `str` (it is 'maybe')",
            "FAREBOX_ORDERS_MAX: Expected `int`, got `str` (it is 'many')",
            "farebox.toml: allowed_hosts: Expected `str`, got `int` - at `$[1]`",
            "farebox.toml: assumed_picture_usd: write a price above 0 and up to 1000 (it is '-1')",
            "farebox.toml: guards.a.kidn: there is no such setting; did you mean kind?",
            "farebox.toml: guards.a.seconds: Expected `float` <= 30.0 (it is 60)",
            "farebox.toml: hang_up: write 'cancel' or 'drain' (it is 'wait')",
            "farebox.toml: plans: Expected a table, got `int` (it is 7)",
            "farebox.toml: prot: there is no such setting; did you mean port?",
            "farebox.toml: upstreams.b.kind: is not set, and has no default",
            "farebox.toml: upstreams.b.per_model.m.zdr: Expected `bool`, got `int` (it is 7)",
            "farebox.toml: workers: Expected `int` >= 1 (it is 0)",
        ]
    )
