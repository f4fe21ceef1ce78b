"""What batching across calls is worth: Whisper on utterances of several calls in one pass, and on one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from cluster.bench import random_whisper
from cluster.bench.report import Report
from cluster.bench.sentences import QUESTIONS
from cluster.call import speak
from cluster.robot import RATE
from serve import registry
from serve.contracts import BatchingSpeechToText, TranscribeRequest
from serve.errors import ParleyError

Progress = Callable[[str], None]
ENGINE = "faster-whisper"


async def batch(
    model: str | None,
    options: dict[str, Any],
    say: Progress,
    *,
    size: str = "base",
    tokens: int = 16,
    calls: int = 8,
    rounds: int = 7,
) -> Report:
    """Measure one pass over utterances of several calls against a pass for each, on the same audio, in turns.

    Args:
        model: As the engine's option; None: random weights.
        options: More of the engine's options.
        say: Told what is going on.
        size: Of the random model, a name of `random_whisper.SIZES`.
        tokens: That the random model writes for each utterance.
        calls: Utterances, one a call.
        rounds: How often.
    """
    with TemporaryDirectory(prefix="parley-whisper-") as folder:
        chosen = {"language": "en", **options, "model": model}
        if model is None:
            say(f"a Whisper of size {size} is made of random weights")
            made = await asyncio.to_thread(random_whisper.make, Path(folder), random_whisper.SIZES[size])
            # It repeats itself, and is unsure of everything: nothing of that may cost it a second try.
            guards = {"no_speech": None, "log_probability": None, "compression": None}
            chosen |= {"model": str(made), "max_tokens": tokens, **guards}
        engine = cast(BatchingSpeechToText, registry.create(ENGINE, chosen))
        await engine.load()
        try:
            return await _measure(engine, say, calls, rounds, _title(model, size, tokens, calls))
        finally:
            await engine.close()


async def _measure(engine: BatchingSpeechToText, say: Progress, calls: int, rounds: int, title: str) -> Report:
    texts = [QUESTIONS[number % len(QUESTIONS)] for number in range(calls)]
    requests = [TranscribeRequest(each.samples.tobytes(), RATE) for each in await speak(texts)]
    seconds = sum(len(each.audio) for each in requests) / (2 * RATE)
    one_pass: list[float] = []
    one_by_one: list[float] = []
    say(f"{rounds} rounds, {calls} utterances, {seconds:.0f} s of speech")
    for number in range(rounds + 1):
        # Who is first changes with each round; the first round warms both up.
        if number % 2:
            apart, together = await _apart(engine, requests), await _together(engine, requests)
        else:
            together, apart = await _together(engine, requests), await _apart(engine, requests)
        if number:
            one_pass.append(together)
            one_by_one.append(apart)
    report = Report(title)
    report.add(f"{calls} utterances in one pass", "s", one_pass)
    report.add(f"{calls} utterances one at a time", "s", one_by_one)
    ratios = [apart / together for apart, together in zip(one_by_one, one_pass, strict=True)]
    report.add("one at a time to one pass", "x", ratios, "ratio of each round: above 1, batching is quicker")
    report.add("heard in one pass", "s/s", [seconds / each for each in one_pass], "speech for a second of work")
    report.add("heard one at a time", "s/s", [seconds / each for each in one_by_one], "speech for a second of work")
    loaded = vars(engine)["_model"].model
    report.facts["runs on"] = f"{loaded.device}, {loaded.compute_type}"
    return report


async def _together(engine: BatchingSpeechToText, requests: list[TranscribeRequest]) -> float:
    began = time.perf_counter()
    answers = await engine.transcribe_batch(requests)
    took = time.perf_counter() - began
    for answer in answers:
        if isinstance(answer, ParleyError):
            raise answer
    return took


async def _apart(engine: BatchingSpeechToText, requests: list[TranscribeRequest]) -> float:
    began = time.perf_counter()
    for request in requests:
        await engine.transcribe(request)
    return time.perf_counter() - began


def _title(model: str | None, size: str, tokens: int, calls: int) -> str:
    what = f"--model {model}" if model else f"--size {size} --tokens {tokens}"
    return f"batch {what} --calls {calls}"
