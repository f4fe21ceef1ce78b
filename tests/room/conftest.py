"""Callers for the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.call import Utterance, read_wav
from tests.conftest import Parley


@pytest.fixture
def say(parley: Parley) -> Callable[[str], Utterance]:
    """Return speech of a text, as a caller's microphone gives it."""
    return lambda text: Utterance(read_wav(parley.speech(text)).samples, text)
