"""Unit: who changed what is noted, and what ran before is found."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cluster import history
from serve.errors import ConfigError, ParleyError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    return tmp_path


def test_changes_are_numbered_and_kept(folder: Path) -> None:
    first = history.here("local", {"models": 1})
    second = history.note("deploy", "my.yaml", "added llm-b", first.number, {"models": 2})
    assert history.read() == [first, second]
    assert (first.number, first.action, second.number, second.before) == (1, "up", 2, 1)
    assert second.who
    assert history.here("my.yaml", {"models": 2}) == second, "what is noted is not noted again"
    assert stat.S_IMODE((folder / "history.jsonl").stat().st_mode) == 0o600


def test_rolling_back_goes_one_change_further_each_time() -> None:
    first = history.here("local", {"n": 1})
    second = history.note("deploy", "b", "", first.number, {"n": 2})
    third = history.note("deploy", "c", "", second.number, {"n": 3})
    assert history.find(history.read(), None) == second
    back = history.note("rollback", "b", "", second.before, second.settings)
    assert history.find(history.read(), None) == first
    assert history.find(history.read(), third.number) == third
    history.note("rollback", "local", "", first.before, first.settings)
    with pytest.raises(ConfigError, match="nothing ran before"):
        history.find(history.read(), None)
    assert back.number == 4


def test_a_swap_that_was_rolled_back_leaves_nothing_to_undo() -> None:
    first = history.here("local", {"n": 1})
    second = history.note("deploy", "b", "", first.number, {"n": 2})
    for settings in ({"n": 3}, {"n": 4}, {"n": 2}):
        history.note("swap", "b", "", second.number, settings)
    assert history.find(history.read(), None) == first


def test_an_unknown_change_and_an_empty_history_are_said() -> None:
    with pytest.raises(ConfigError, match="nothing ran before"):
        history.find(history.read(), None)
    with pytest.raises(ConfigError, match="no change 7"):
        history.find(history.read(), 7)


def test_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    for number in range(5):
        history.note("deploy", "local", "", None, {"n": number})
    assert [each.number for each in history.read()] == [3, 4, 5]


def test_one_change_at_a_time() -> None:
    with history.changing(), pytest.raises(ParleyError, match="at work"), history.changing():
        pytest.fail("two at once")
    with history.changing():
        pass


def test_a_broken_file_is_a_sentence(folder: Path) -> None:
    (folder / "history.jsonl").write_text("{}\n")
    with pytest.raises(ParleyError, match="cannot be read"):
        history.read()
