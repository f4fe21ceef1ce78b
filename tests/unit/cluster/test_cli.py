"""Unit: the `parley` command says what it does, and fails in a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import doctor, livekit
from cluster.config import LiveKitConfig

pytestmark = pytest.mark.unit

CHANGES = ("deploy", "swap", "routes", "rollback")


def parley(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        env={**os.environ, "PARLEY_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", ["up", "down", "status", "doctor", "models", "fetch", *CHANGES])
def test_every_command_has_help_with_an_example(tmp_path: Path, command: str) -> None:
    result = parley(tmp_path, command, "--help")
    assert result.returncode == 0
    assert f"Example: parley {command}" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_alone_it_shows_the_commands_one_needs(tmp_path: Path) -> None:
    result = parley(tmp_path)
    assert result.returncode == 0
    assert "nothing is up here" in result.stdout
    assert "parley doctor" in result.stdout
    assert "\x1b" not in result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, cluster.cli; sys.exit(any(name in sys.modules for name in ('ray', 'livekit', 'numpy', 'httpx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_status_with_nothing_up_says_what_to_do(tmp_path: Path) -> None:
    result = parley(tmp_path, "status", "--json")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.strip() == "nothing is up here; start it with `parley up`"


def test_down_with_nothing_up_is_fine(tmp_path: Path) -> None:
    result = parley(tmp_path, "down", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"stopped": False, "processes": 0}


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_wrong_profile_is_a_message_not_a_traceback(tmp_path: Path, detach: list[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("models: []\ncolour: red\n")
    result = parley(tmp_path, "up", "--profile", str(path), *detach)
    assert result.returncode == 1
    assert "wrong.yaml:2: colour: unknown key" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in parley(tmp_path, "up", "--profile", str(path), PARLEY_DEBUG="1").stderr


def test_doctor_prints_its_findings(tmp_path: Path) -> None:
    result = parley(tmp_path, "doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["python"]["status"] == "ok"
    assert {"livekit", "go", "node", "chromium", "memory", "cores", "ports", "page"} <= findings.keys()
    assert {"libflite1", "espeak", "hub", "models"} <= findings.keys()


def test_a_profile_that_lacks_something_is_a_finding(tmp_path: Path) -> None:
    result = parley(tmp_path, "doctor", "--profile", "openai", "--json")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert result.returncode == 1
    assert findings["models"]["status"] == "missing"
    assert "set OPENAI_API_KEY" in findings["models"]["advice"]


def test_without_any_voice_both_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_flite", lambda: False)
    monkeypatch.setattr(doctor, "has_espeak", lambda: True)
    voice = {finding.name: finding for finding in doctor.examine()}["libflite1"]
    assert voice.status == "optional"
    monkeypatch.setattr(doctor, "has_espeak", lambda: False)
    voice = {finding.name: finding for finding in doctor.examine()}["libflite1"]
    assert voice.status == "missing"
    assert "libflite1" in voice.advice
    assert "parley[espeak]" in voice.advice


def test_livekits_secret_is_in_no_configuration() -> None:
    keys, config = livekit.Keys.make(), LiveKitConfig()
    assert keys.secret not in repr(keys)
    written = livekit.settings(config, keys.key, "http://127.0.0.1:8000")
    assert keys.secret not in written
    assert livekit.Keys.make().secret != keys.secret
    settings = json.loads(written)
    assert settings["webhook"] == {"api_key": keys.key, "urls": ["http://127.0.0.1:8000/webhooks/livekit"]}
    assert settings["bind_addresses"] == ["127.0.0.1"]
    assert settings["rtc"]["stun_servers"] == []
