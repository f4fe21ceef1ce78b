"""What the tests share: markers by folder, no paid API within reach, and one real cluster for all that need one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serve.settings import apply_ray_environment

apply_ray_environment()

ROOT = Path(__file__).parents[1]
ARTIFACTS = ROOT / "artifacts"

PAID = ("OPENAI", "AZURE", "DEEPGRAM", "ELEVEN", "ANTHROPIC", "GOOGLE", "AWS", "CARTESIA")
"""Providers whose keys no test may see: what is not there cannot be spent."""


def pytest_configure(config: pytest.Config) -> None:
    """Take paid providers' keys out of the environment before anything starts."""
    for name in list(os.environ):
        if name.startswith(PAID):
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that does not say what it is; run the quick ones first."""
    order = ("unit", "contract", "serve", "room", "browser")
    for item in items:
        kinds = [mark.name for mark in item.iter_markers() if mark.name in order]
        if not kinds:
            raise pytest.UsageError(f"{item.nodeid}: set pytestmark to one of {', '.join(order)}")
    items.sort(key=lambda item: min(order.index(m.name) for m in item.iter_markers() if m.name in order))


@dataclass
class Parley:
    """A cluster that is up.

    Attributes:
        page: Address of the page.
        addresses: All addresses, as `parley status` prints them.
        logs: Folder of the logs.
    """

    page: str
    addresses: dict[str, str | None]
    logs: Path
    profile_calls: int
    _spoken: dict[str, Path] = field(default_factory=dict[str, Path])

    def speech(self, text: str) -> Path:
        """Return a WAV (16 kHz mono) of a text spoken by the embedded voice."""
        if text not in self._spoken:
            import wave

            from cluster.call import speak
            from cluster.robot import RATE

            samples = asyncio.run(speak([text]))[0].samples
            path = ARTIFACTS / "speech" / f"{len(self._spoken)}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(samples.tobytes())
            self._spoken[text] = path
        return self._spoken[text]
