"""`parley models`: engines, and what a profile's models need, have and cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import models_command, needs
from serve import hub, registry
from tests.fake_hub import FakeHub, point_to, running

pytestmark = pytest.mark.unit

FILE = "hf://owner/model/weights.gguf"
PROFILE = f"""\
models:
  - {{name: ears, engine: fake-stt}}
  - {{name: mind, engine: openai-llm}}
  - {{name: spare, engine: llamacpp, options: {{path: "{FILE}"}}, resources: {{gpus: 0.5, memory_mb: 900}}}}
  - {{name: mine, engine: llamacpp, options: {{path: /no/such/file.gguf}}, replicas: {{min: 0, max: 3}}}}
  - {{name: mouth, engine: fake-tts}}
routes:
  stt: ears
  llm: {{default: mind, fallbacks: [spare], weights: {{mine: 0.1}}}}
  tts: mouth
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    return str(tmp_path / "profile.yaml")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with running({"owner/model/weights.gguf": b"x" * 5_000_000}) as fake:
        point_to(fake, monkeypatch, tmp_path / "cache")
        yield fake


def test_engines_are_listed_by_role_without_those_for_tests() -> None:
    found = models_command.engines()["engines"]
    assert {engine["engine"] for engine in found} == {
        name for name in registry.engines() if not name.startswith("fake-")
    }
    assert [engine["role"] for engine in found] == sorted(
        (engine["role"] for engine in found), key=("stt", "llm", "tts").index
    )
    by_name = {engine["engine"]: engine for engine in found}
    assert by_name["espeak"]["licence"] == "GPL-3.0"
    assert by_name["espeak"]["extra"] == "espeak"
    assert by_name["openai-llm"]["proxy"]


def test_every_engine_that_runs_here_names_its_licence() -> None:
    nameless = [name for name, entry in registry.engines().items() if not entry.proxy and not entry.licence]
    assert [name for name in nameless if not name.startswith("fake-")] == []


def test_a_missing_extra_shows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(needs, "not_installed", lambda extra: ("piper-tts",) if extra == "piper" else ())  # pyright: ignore
    found = {engine["engine"]: engine["installed"] for engine in models_command.engines()["engines"]}
    assert (found["piper"], found["kokoro"]) == (False, True)
    models_command.run(None, [], as_json=False)
    assert "piper (missing)" in capsys.readouterr().out


def test_extras_are_looked_up_in_parleys_own_metadata() -> None:
    assert needs.not_installed(None) == ()
    assert needs.not_installed("dev") == ()
    assert needs.not_installed("no-such-extra") == ("no-such-extra",)


def test_what_each_model_needs(fake: FakeHub, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    facts = models_command.models(path)
    by_name = {model["model"]: model for model in facts["models"]}
    assert (facts["download_bytes"], facts["hub"]) == (5_000_000, None)
    assert by_name["mind"]["keys"] == [{"variable": "OPENAI_API_KEY", "set": False}]
    assert by_name["mind"]["cost"] == "paid, per use"
    assert by_name["spare"]["files"] == [{"file": FILE, "bytes": 5_000_000, "here": False}]
    assert by_name["spare"]["resources"]["gpus"] == 0.5
    assert by_name["mine"]["files"] == [{"file": "/no/such/file.gguf", "bytes": None, "here": False}]
    assert [by_name[name]["route"] for name in ("mind", "spare", "mine")] == ["default", "fallback 1", "10% of calls"]
    hub.fetch(FILE)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    facts = models_command.models(path)
    assert facts["download_bytes"] == 0
    assert facts["models"][1]["keys"][0]["set"]
    assert "sk-secret" not in json.dumps(facts)


def test_a_hub_that_is_away_leaves_sizes_open(path: str, fake: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    fake.status = 503
    models_command.run(path, [], as_json=False)
    shown = capsys.readouterr().out
    assert f"{FILE}, to fetch" in shown
    assert "sizes are not known: the hub answers with 503" in shown
    assert "0.5 GPU, 900 MB" in shown
    assert "CPU, 0 to 3 replicas" in shown


def test_as_json_it_is_one_object(path: str, fake: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    models_command.run(path, ["api.port=9000"], as_json=True)
    assert json.loads(capsys.readouterr().out)["profile"] == path
