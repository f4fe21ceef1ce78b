"""Which profile is taken where nobody names one, and why: against a fake hub that is there, away, slow or broken."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import choice, doctor, needs, profile
from cluster.console import Story
from cluster.up import Step
from serve import hub, transfer
from serve.errors import ParleyError
from serve.settings import home
from tests.fake_hub import FakeHub, point_to, running

pytestmark = pytest.mark.unit

EMBEDDED = "local" if doctor.has_flite() else "local-pip"


class Told(Story):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []
        self.on_step = lambda: None

    def __call__(self, step: Step) -> None:
        self.on_step()

    def note(self, text: str) -> None:
        self.notes.append(text)


def content() -> dict[str, bytes]:
    """Return small files in the places of the profile's."""
    files: dict[str, bytes] = {}
    for reference in needs.references(profile.load(choice.HUB)):
        parsed = hub.parse(reference)
        name = f"{parsed.repo}/{parsed.file or 'model.bin'}"
        files[name] = name.encode() * 1000
    return files


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr(choice, "PROBE_SECONDS", 10.0)
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(choice.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**40))
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PROFILE", raising=False)
    with running(content()) as fake:
        point_to(fake, monkeypatch, tmp_path / "cache")
        yield fake


def choose(named: str | None = None, end: threading.Event | None = None) -> tuple[str, str]:
    story = Told()
    return choice.choose(named, story, end or threading.Event()), "\n".join(story.notes)


def test_a_name_decides_and_nobody_is_asked(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("my.yaml") == ("my.yaml", "")
    monkeypatch.setenv("PROFILE", "gpu")
    assert choose() == ("gpu", "")
    assert choose("local") == ("local", "")
    assert fake.requests == []


def test_a_hub_in_reach_is_taken_and_its_size_said_first(fake: FakeHub) -> None:
    name, why = choose()
    assert name == "hub"
    assert f"{fake.endpoint.removeprefix('http://')} answers, and has better models; 1 MB to fetch, once" in why
    assert f"PROFILE={EMBEDDED} does without" in why
    assert all(hub.cached(reference) for reference in needs.references(profile.load("hub")))


def test_what_is_here_needs_no_hub(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    choose()
    fake.status, fake.requests = 500, []
    assert choose() == ("hub", "profile hub: its models are here")
    assert fake.downloads == []
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert choose()[0] == "hub"


def test_a_hub_that_is_away_costs_no_time(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    name, why = choose()
    assert name == EMBEDDED
    assert "127.0.0.1:9 is not in reach (ConnectError); PROFILE=hub asks again" in why
    assert not list(home().glob("hub-*")), "it costs nothing to ask again"


def test_a_silent_hub_is_asked_once_an_hour(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PROBE_SECONDS", 0.2)
    fake.hang = threading.Event()
    name, why = choose()
    assert name == EMBEDDED
    assert "keeps silent" in why
    asked = len(fake.requests)
    assert "kept silent 0 minutes ago; PROFILE=hub asks again" in choose()[1]
    assert len(fake.requests) == asked
    fake.hang.set()
    fake.hang = None
    monkeypatch.setattr(choice, "PROBE_SECONDS", 10.0)
    long_ago = time.time() - choice.REMEMBERED_SECONDS - 1
    os.utime(home() / "hub-silent", (long_ago, long_ago))
    assert choose()[0] == "hub"


def test_another_hub_is_asked_at_once(fake: FakeHub) -> None:
    home().mkdir(parents=True)
    (home() / "hub-silent").write_text("https://elsewhere.example")
    assert choose()[0] == "hub"


@pytest.mark.parametrize("status", [403, 407, 500, 503])
def test_who_answers_for_a_hub_but_is_none(fake: FakeHub, status: int) -> None:
    fake.status = status
    name, why = choose()
    assert name == EMBEDDED
    assert f"answers with {status}" in why


def test_a_download_that_fails_leads_to_what_is_in_packages(fake: FakeHub) -> None:
    fake.wrong = True
    name, why = choose()
    assert name == EMBEDDED
    assert "the models of hub do not come: " in why
    assert "checksum" in why


def test_a_model_that_is_gone_leads_to_what_is_in_packages(fake: FakeHub) -> None:
    fake.files.clear()
    name, why = choose()
    assert name == EMBEDDED
    assert "the hub has no " in why


def test_a_machine_that_is_too_small(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    assert "profile hub takes 4 GiB of memory" in choose()[1]
    assert fake.downloads == []


def test_an_engine_that_is_not_installed(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "not_installed", lambda extra: (extra,) if extra == "piper" else ())  # pyright: ignore
    name, why = choose()
    assert name == EMBEDDED
    assert "piper is not installed: `uv pip install 'parley[piper]'`" in why


def test_offline_nobody_is_asked(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    name, why = choose()
    assert name == EMBEDDED
    assert "HF_HUB_OFFLINE is set" in why
    assert fake.requests == []


def test_a_signal_ends_it_and_what_came_is_kept(fake: FakeHub) -> None:
    end, story = threading.Event(), Told()
    story.on_step = end.set
    with pytest.raises(ParleyError, match="stopped; what came is kept"):
        choice.choose(None, story, end)
    assert choose()[0] == "hub"
