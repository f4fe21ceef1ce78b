"""The voice with which robot callers speak: an embedded one, in this process, so that no cluster is needed for it."""

from __future__ import annotations

from typing import cast

from serve import registry
from serve.contracts import TextToSpeech
from serve.errors import EngineMissing


async def embedded_voice() -> TextToSpeech:
    """Return a loaded embedded voice: flite where its library is there, else espeak.

    Raises:
        EngineMissing: Neither is there; says what to install.
    """
    problem: EngineMissing | None = None
    for engine in ("flite", "espeak"):
        try:
            voice = cast(TextToSpeech, registry.create(engine, {}))
            await voice.load()
        except EngineMissing as error:
            problem = problem or error
        else:
            return voice
    assert problem is not None
    raise problem
