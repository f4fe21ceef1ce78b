"""What each engine of a profile takes by itself: memory and time to load. As a module it is the measured process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import cast

import psutil

from cluster.bench.report import Report
from cluster.profile import Profile
from serve import registry
from serve.contracts import (
    ChatRequest,
    LanguageModel,
    SpeechRequest,
    SpeechToText,
    TextToSpeech,
    TranscribeRequest,
)
from serve.errors import Unavailable

Progress = Callable[[str], None]
LOAD_SECONDS = 300.0
_READY = b"ready"


def engines(profile: Profile, say: Progress) -> Report:
    """Load each self-hosted model of a profile in a process of its own, and measure it after its first request."""
    report = Report("engines")
    for model in profile.models:
        if registry.entry(model.engine).proxy:
            continue
        say(model.name)
        size, seconds = _measure(model.engine, json.dumps(model.options))
        report.add(f"{model.name}: memory", "MiB", [size], "PSS with its processes, after one request")
        report.add(f"{model.name}: loaded and warm", "s", [seconds], "from the start of its process")
    return report


def _measure(engine: str, options: str) -> tuple[float, float]:
    started = time.perf_counter()
    command = [sys.executable, "-m", __name__, engine, options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        watchdog = threading.Timer(LOAD_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdin
            assert process.stdout
            for line in process.stdout:
                if line.strip() == _READY:
                    seconds = time.perf_counter() - started
                    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                    size = sum(each.memory_full_info().pss for each in family) / 2**20
                    process.stdin.close()
                    return size, seconds
            raise Unavailable(f"{engine} did not load within {LOAD_SECONDS:.0f} s, or not at all")
        finally:
            watchdog.cancel()


async def _live(name: str, options: str) -> None:
    """Load an engine, send it one request, say so, and stay until the parent closes the pipe."""
    engine = registry.create(name, json.loads(options))
    role = registry.entry(name).role
    await engine.load()
    try:
        if role == "stt":
            await cast(SpeechToText, engine).transcribe(TranscribeRequest(bytes(32000), 16000))
        elif role == "llm":
            request = ChatRequest([{"role": "user", "content": "Hello"}], max_tokens=4)
            async with aclosing(cast(LanguageModel, engine).chat(request)) as chunks:
                async for _ in chunks:
                    pass
        else:
            async with aclosing(cast(TextToSpeech, engine).speak(SpeechRequest("Ready."))) as speech:
                async for _ in speech:
                    pass
        print(_READY.decode(), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(_live(sys.argv[1], sys.argv[2]))
