"""`parley fetch`: what a profile needs is brought here, with a bar for people and silence for programs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from cluster import commands, fetch, needs, profile
from cluster.console import Story
from cluster.up import Step
from serve import hub, transfer
from serve.config import ModelConfig
from serve.errors import ParleyError
from tests.fake_hub import FakeHub, point_to, running

pytestmark = pytest.mark.unit

LARGE = "hf://owner/model/large.gguf"
SMALL = "hf://owner/model/small.json"
FILES = {"owner/model/large.gguf": b"0123456789" * 300_000, "owner/model/small.json": b"{}"}

PROFILE = f"""\
models:
  - {{name: ears, engine: fake-stt}}
  - {{name: mind, engine: llamacpp, options: {{path: "{LARGE}"}}}}
  - {{name: other, engine: llamacpp, options: {{path: "{LARGE}"}}}}
  - {{name: mouth, engine: fake-tts}}
routes: {{stt: ears, llm: mind, tts: mouth}}
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.01)
    with running(dict(FILES)) as fake:
        point_to(fake, monkeypatch, tmp_path / "cache")
        yield fake


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    return str(tmp_path / "profile.yaml")


class Steps(Story):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        self.steps.append(step)


def test_a_profile_says_what_it_reads(path: str) -> None:
    assert needs.references(profile.load(path)) == (LARGE,)


def test_options_are_searched_with_their_defaults_and_engines_may_say_more() -> None:
    def files(engine: str, **options: object) -> tuple[str, ...]:
        return needs.files(needs.options(ModelConfig(name="m", engine=engine, options=options)))

    assert len([file for file in files("kokoro") if hub.is_reference(file)]) == 2
    assert files("piper", voice="hf://o/m/a.onnx") == ("hf://o/m/a.onnx", "hf://o/m/a.onnx.json")
    assert files("faster-whisper", model="base.en") == ("hf://Systran/faster-whisper-base.en",)
    assert files("llamacpp", path="~/a.gguf") == ("~/a.gguf",)
    assert files("llamacpp") == files("fake-llm") == ()


def test_only_what_is_missing_is_wanted(fake: FakeHub) -> None:
    hub.fetch(SMALL)
    assert fetch.wanted([LARGE, SMALL]) == fetch.Wanted({LARGE: 3_000_000})
    assert fetch.wanted([SMALL]).size == 0


def test_in_a_pipe_it_tells_how_far_it_is(fake: FakeHub) -> None:
    story = Steps()
    fetch.fetch(fetch.wanted([LARGE, SMALL]), story)
    assert story.steps[-1].name == "fetch"
    assert story.steps[-1].seconds is not None
    assert story.steps[-1].detail == "3 MB"
    assert story.steps[-2].detail == "3 MB of 3 MB"
    assert hub.cached(LARGE)
    assert hub.cached(SMALL)


def test_on_a_terminal_there_is_a_bar(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(fetch, "Console", lambda **_: Console(file=shown, force_terminal=True, width=120))  # pyright: ignore
    fetch.fetch(fetch.wanted([LARGE]), Steps())
    assert "owner/model/large.gguf" in shown.getvalue()
    assert "MB" in shown.getvalue()


def test_stopped_it_goes_on_where_it_was(fake: FakeHub) -> None:
    end, story = threading.Event(), Steps()
    fake.cut = [1_000_000] + [0] * 50
    story.__class__ = type("Stopping", (Steps,), {"__call__": lambda self, step: end.set()})
    with pytest.raises(ParleyError, match="what came is kept"):
        fetch.fetch(fetch.wanted([LARGE]), story, end)
    fake.cut = []
    # The thread may still write what it had in hand; the lock keeps the next one waiting for it.
    fetch.fetch(fetch.wanted([LARGE]), Steps())
    found = hub.cached(LARGE)
    assert found
    assert found.read_bytes() == FILES["owner/model/large.gguf"]


def test_the_command_is_quiet_for_programs(fake: FakeHub, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for fetched in (3_000_000, 0):
        commands.fetch(path, [], as_json=True)
        shown = capsys.readouterr()
        assert shown.err == ""
        facts = json.loads(shown.out)
        assert facts["fetched_bytes"] == fetched
        assert Path(facts["files"][LARGE]).is_file()
    commands.fetch("local", [], as_json=False)
    assert "needs nothing of a hub" in capsys.readouterr().out


def test_ctrl_c_ends_the_command_and_the_next_one_goes_on(fake: FakeHub, path: str, tmp_path: Path) -> None:
    import signal

    fake.cut = [1_000_000]
    hang = threading.Event()
    environment = {**os.environ, "HF_ENDPOINT": fake.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache")}
    environment |= {"HF_HUB_OFFLINE": "0", "PARLEY_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "cluster.cli", "fetch", "--profile", path]

    def hear_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs begin deaf to it

    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    ) as process:
        assert process.stderr
        # Its first line of news: bytes have come. From now on the hub keeps silent.
        line = process.stderr.readline()
        fake.hang = hang
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert "of 3 MB" in line
        assert process.returncode == 130
    hang.set()
    fake.hang = None
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "bytes=" in fake.downloads[-1]


def test_a_hub_that_is_away_is_an_error_in_a_sentence(path: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "cache")}
    environment |= {"HF_HUB_OFFLINE": "0", "PARLEY_HOME": str(tmp_path)}
    for command in ("fetch", "up"):
        arguments = [sys.executable, "-m", "cluster.cli", command, "--profile", path]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "the hub at http://127.0.0.1:9 does not answer" in done.stderr
        assert "Traceback" not in done.stderr
