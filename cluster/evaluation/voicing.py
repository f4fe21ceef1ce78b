"""What callers of a suite sound like: voices other than the assistant's, pauses, noise at a signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cluster.bench import sounds
from cluster.call import read_wav
from cluster.evaluation.suite import Case, Noise
from cluster.robot import RATE, Samples, loud_frames
from serve import audio, registry
from serve.contracts import SpeechRequest, TextToSpeech
from serve.errors import BadRequest, ConfigError, EngineMissing, ParleyError

VOICES = ("flite:slt", "flite:awb", "espeak:en-gb-x-rp", "espeak:en-us+f3")
"""Where a case names none: the first of these that is here and is not the assistant's own."""

LEAD_SECONDS = 0.5
"""Noise before the first word; a voice that comes with its noise in the same instant is nobody's."""

_FULL = 32767


@dataclass(frozen=True, slots=True)
class Spoken:
    """A case as it sounds.

    Attributes:
        samples: The question: pcm16 mono at the robot's rate.
        voice: Who speaks; "" for a recording.
        over: What is heard over the answer.
        before: What is said first.
    """

    samples: Samples
    voice: str
    over: Samples | None = None
    before: tuple[Samples, ...] = ()


class Booth:
    """Speaks cases. Use as `async with Booth("rms") as booth:`.

    Args:
        seed: Of noise.
        not_as: Voices that nobody speaks with by default: the assistant's, as `engine:voice`.
    """

    def __init__(self, seed: int = 7, not_as: Sequence[str] = ()) -> None:
        self._seed, self._not_as = seed, set(not_as)
        self._engines: dict[str, TextToSpeech] = {}
        self._default = ""

    async def __aenter__(self) -> Booth:
        return self

    async def __aexit__(self, *_: object) -> None:
        for engine in self._engines.values():
            await engine.close()

    async def voice(self) -> str:
        """Return the voice of cases that name none.

        Raises:
            EngineMissing: No voice but the assistant's is here.
        """
        missing = ""
        for each in VOICES if not self._default else ():
            if each in self._not_as:
                continue
            try:
                await self._engine(each)
            except EngineMissing as error:
                missing = missing or str(error)
            else:
                self._default = each
                break
        if not self._default:
            raise EngineMissing(missing or "no voice but the assistant's is here")
        return self._default

    async def speak(self, case: Case, folder: Path, number: int) -> Spoken:
        """Return a case as it sounds.

        Args:
            case: What is said.
            folder: Where its recordings are.
            number: Of the case, so that each has a noise of its own.

        Raises:
            EngineMissing: Its voice is not here.
            ConfigError: Its voice or recording cannot be used; names the case and the field.
        """
        silent = not case.say and not case.before and not (case.over and case.over.say)
        voice = "" if silent else case.voice
        voice = await self.voice() if voice is None else voice
        try:
            if case.sound:
                said = sounds.noise(case.sound, level=1.0, seed=self._seed + number)
            elif case.audio:
                said = read_wav(folder / case.audio).samples
            else:
                said = joined([await self.say(part, voice, case.speed) for part in case.say], case.pauses)
            before = [await self.say(part, voice, case.speed) for part in case.before]
            over = None
            if case.over and case.over.say:
                over = await self.say(case.over.say, voice, case.speed)
            elif case.over and case.over.sound:
                made = case.over
                over = sounds.noise(case.over.sound, level=made.level, seconds=made.seconds, seed=self._seed + number)
        except BadRequest as error:
            raise ConfigError(f"case {case.name}: {'audio' if case.audio else 'voice'}: {error}") from None
        said = (said * case.gain).astype(np.int16)
        if case.noise:
            said = noisy(said, case.noise, self._seed + number)
        return Spoken(said, voice if case.say else "", over, tuple(before))

    async def say(self, text: str, voice: str, speed: float) -> Samples:
        """Return a text as a voice says it, without the silence around it."""
        engine = await self._engine(voice)
        pcm = b""
        async for chunk in engine.speak(SpeechRequest(text, voice=voice.partition(":")[2], speed=speed)):
            pcm += audio.resample(chunk.audio, chunk.sample_rate, RATE) if chunk.audio else b""
        samples = np.frombuffer(pcm, dtype=np.int16)
        loud = np.flatnonzero(loud_frames(samples))
        if not len(loud):
            raise BadRequest("say", f"{voice} says nothing that can be heard of {text!r}")
        return samples[int(loud[0]) * RATE // 100 : int(loud[-1] + 1) * RATE // 100]

    async def _engine(self, voice: str) -> TextToSpeech:
        name = voice.partition(":")[0]
        if name not in self._engines:
            engine = cast(TextToSpeech, registry.create(name, {}))
            try:
                await engine.load()
            except ParleyError:
                await engine.close()
                raise
            self._engines[name] = engine
        return self._engines[name]


def joined(parts: Sequence[Samples], pauses: Sequence[float]) -> Samples:
    """Return parts with their pauses, in seconds, as one."""
    whole: list[Samples] = []
    for part, pause in zip(parts, [*pauses, 0.0], strict=True):
        whole += [part, np.zeros(int(pause * RATE), np.int16)]
    return np.concatenate(whole)


def noisy(samples: Samples, noise: Noise, seed: int) -> Samples:
    """Return speech with noise under it, from `LEAD_SECONDS` before it to its end.

    It ends with the voice, so that the end of speech, from which voice to voice is measured, is that of the voice.

    Args:
        samples: pcm16 mono at the robot's rate.
        noise: Its kind, and the ratio of the powers of speech (where there is any) and noise in dB.
        seed: Of the random numbers.
    """
    whole = np.concatenate([np.zeros(int(LEAD_SECONDS * RATE)), samples.astype(np.float64)])
    under = sounds.noise(noise.kind, level=1.0, seconds=len(whole) / RATE + 0.01, seed=seed)[: len(whole)]
    under = under.astype(np.float64)
    wanted = power_of_speech(samples) / 10 ** (noise.snr / 10)
    whole += under * np.sqrt(wanted / np.mean(under**2))
    peak = float(np.abs(whole).max())
    return (whole * min(1.0, _FULL / peak)).astype(np.int16)


def power_of_speech(samples: Samples) -> float:
    """Return the mean square of the 10 ms that can be heard: pauses say nothing of how loud a voice is."""
    loud = np.repeat(loud_frames(samples), RATE // 100)
    return float(np.mean(samples[: len(loud)][loud].astype(np.float64) ** 2))
