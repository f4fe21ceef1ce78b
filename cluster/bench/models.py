"""What models cost by themselves: a hop over a handle, and the recogniser's errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, cast

from cluster.bench.report import Report
from cluster.bench.sentences import PAUSED, QUESTIONS
from cluster.call import speak
from cluster.profile import Profile
from cluster.robot import RATE
from serve import registry
from serve.client import Models
from serve.contracts import RequestContext, SpeechRequest, TextToSpeech, TranscribeRequest

Progress = Callable[[str], None]
CONTEXT = RequestContext(timeout=20.0)
TEXT = "Yes, I can."


async def hop(profile: Profile, say: Progress, *, times: int) -> Report:
    """Measure the first chunk of speech over a handle and in this process, in turns; a hop is a pair's difference."""
    config = profile.model(profile.routes.model("tts"))
    engine = cast(TextToSpeech, registry.create(config.engine, config.options))
    await engine.load()
    models = Models(profile.routes)
    remote: list[float] = []
    local: list[float] = []
    try:
        say(f"{times} pairs")
        for number in range(times + 10):
            here = await _first_chunk(engine.speak(SpeechRequest(TEXT)))
            there = await _first_chunk(models.speak(SpeechRequest(TEXT), CONTEXT))
            if number >= 10:  # the first ones warm both sides up
                local.append(here)
                remote.append(there)
    finally:
        await engine.close()
    report = Report(f"hop --times {times}")
    report.add("first chunk over a handle", "ms", remote)
    report.add("first chunk in-process", "ms", local)
    report.add("model hop", "ms", [r - h for r, h in zip(remote, local, strict=True)], "difference of each pair")
    return report


async def _first_chunk(chunks: Any) -> float:
    started = time.perf_counter()
    async with aclosing(chunks) as stream:
        async for _ in stream:
            return (time.perf_counter() - started) * 1000
    return (time.perf_counter() - started) * 1000


async def wer(profile: Profile, say: Progress) -> Report:
    """Measure the word error rate on sentences spoken by the embedded voice, over the cluster's recogniser."""
    import jiwer

    texts = [*QUESTIONS, *(" ".join(pair) for pair in PAUSED)]
    spoken = await speak(texts)
    models = Models(profile.routes)
    say(f"{len(texts)} sentences")
    heard: list[str] = []
    times: list[float] = []
    for utterance in spoken:
        started = time.perf_counter()
        transcript = await models.transcribe(TranscribeRequest(utterance.samples.tobytes(), RATE), CONTEXT)
        times.append((time.perf_counter() - started) / (len(utterance.samples) / RATE))
        heard.append(transcript.text)
    references = [_plain(text) for text in texts]
    rates = [100 * jiwer.wer(ref, _plain(hyp)) for ref, hyp in zip(references, heard, strict=True)]
    report = Report("wer")
    whole = 100 * jiwer.wer(references, [_plain(text) for text in heard])
    report.add("word error rate of a sentence", "%", rates)
    report.add("time of a whole utterance", "x its length", times)
    report.facts["word error rate over all words"] = f"{whole:.1f}% of {sum(len(r.split()) for r in references)} words"
    return report


def _plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum() or char.isspace())
