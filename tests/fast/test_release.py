"""What a release is held to."""

import pytest

from tools.release import faults

PYPROJECT = '[project]\nversion = "1.2.3"\n'


def test_one_that_is_as_it_should_be() -> None:
    assert faults("1.2.3", PYPROJECT, "# Changes\n\n## 1.2.3, 2026-12-01\n\n- x\n") == []


@pytest.mark.parametrize("head", ["## 1.2.3, not yet released", "## 1.2.2, 2026-12-01", "## 1.2.3", "no head"])
def test_a_changelog_that_does_not_begin_with_it_and_its_day(head: str) -> None:
    (fault,) = faults("1.2.3", PYPROJECT, f"# Changes\n\n{head}\n\n## 1.2.1, 2026-01-01\n")
    assert "CHANGELOG.md" in fault


def test_two_versions() -> None:
    (fault,) = faults("1.2.4", PYPROJECT, "## 1.2.4, 2026-12-01")
    assert "pyproject.toml" in fault
