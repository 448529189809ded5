"""Settings: a name in the environment is that of a setting, or refused."""

import re
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
    settings = {f"FAREBOX_{field.upper()}" for field in Settings.model_fields}
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
