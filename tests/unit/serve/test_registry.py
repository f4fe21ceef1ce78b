"""Engines by name, without loading any."""

from __future__ import annotations

import subprocess
import sys

import pytest

from serve import registry
from serve.errors import ConfigError, EngineMissing

pytestmark = pytest.mark.unit


HOSTED = {"plugin": "livekit.plugins.somebody:Class"}
NEEDED = {"livekit-stt": HOSTED, "livekit-llm": HOSTED, "livekit-tts": HOSTED, "vllm": {"model": "none"}}
"""Options that an engine cannot do without."""


def test_every_entry_has_what_it_names() -> None:
    for name, entry in registry.engines().items():
        engine = registry.create(name, NEEDED.get(name, {}))
        assert type(engine).__name__ == entry.target.split(":")[1]
        assert entry.summary


def test_unknown_engine_lists_the_choices_and_guesses() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pocketsphinx'") as caught:
        registry.create("pocketsphynx", {})
    assert "flite" in str(caught.value)


def test_unknown_option_lists_the_choices_and_guesses() -> None:
    with pytest.raises(ConfigError, match=r"no option 'decoder'.*did you mean 'decoders'.*max_hmms"):
        registry.create("pocketsphinx", {"decoder": 3})


def test_wrong_value_names_the_option_and_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'flite': option 'voice'.*rms"):
        registry.create("flite", {"voice": "nobody"})


def test_duplicates_are_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        registry.register("flite", "tts", "somewhere:Else", None, "")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.Entry("stt", "no_such_package.engine:Engine", "hearing", "")
    monkeypatch.setitem(registry._ENTRIES, "lost", entry)  # pyright: ignore[reportPrivateUsage] no real one is missing
    with pytest.raises(EngineMissing, match=r"uv pip install 'parley\[hearing\]'"):
        registry.create("lost", {})


def test_creating_imports_nothing_heavy() -> None:
    program = (
        f"needed = {NEEDED};"
        "import sys; from serve import registry;"
        "[registry.create(name, needed.get(name, {})) for name in registry.engines()];"
        "heavy = {'openai', 'pocketsphinx', 'xllamacpp', 'espeakng_loader', 'ray', 'livekit'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
