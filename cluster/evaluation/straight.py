"""Cases straight at one model of the running cluster: what it hears, answers, or says, with no call around it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

import numpy as np

from cluster.evaluation.checks import Seen
from cluster.evaluation.suite import Case, Suite
from cluster.evaluation.voicing import Spoken
from cluster.robot import RATE
from serve import audio
from serve.assistant import Assistant
from serve.client import Models
from serve.config import Routes
from serve.contracts import ChatRequest, RequestContext, Role, SpeechRequest, ToolCall, TranscribeRequest

SECONDS = 60.0

AROUND_SECONDS = 0.3
"""Silence around an utterance, as a call has it: a recogniser misses a word that begins with the audio."""

SEED = 7
"""Of models that can repeat themselves."""


class Straight:
    """Asks one model, and for a voice also the recogniser that hears it.

    Args:
        routes: Of the cluster.
        model: Its name.
        role: What it does.
        suite: Whose cases.
        assistants: Whose instructions a language model gets, by name; "default" is the one of cases that name none.
    """

    def __init__(self, routes: Routes, model: str, role: Role, suite: Suite, assistants: dict[str, Assistant]) -> None:
        self._models, self._role, self._suite, self._assistants = Models(routes), role, suite, assistants
        self._context = RequestContext(timeout=SECONDS, model=model)
        self._recogniser = RequestContext(timeout=SECONDS)
        self.model = model

    def unfit(self, case: Case) -> str:
        """Return why a case cannot be tried so; "" where it can."""
        match self._role:
            case "stt":
                return "" if case.references and case.expect.answered else "nobody knows the right words"
            case "tts":
                return "" if case.text else "there is no text to say"
            case _:
                expect = case.expect
                if not (case.text or case.references):
                    return "nobody knows the words that are said"
                if case.file:
                    return "files are read in calls"
                if case.assistant and case.assistant not in self._assistants:
                    return f"the cluster has no assistant {case.assistant}"
                if expect.tool and expect.tool.name not in case.tools:
                    return f"the case gives the model no tool {expect.tool.name} (tools)"
                return "" if expect.answer.model_fields_set or expect.tool or expect.judge else "no rule on the answer"

    async def __call__(self, case: Case, spoken: Spoken | None) -> Seen:
        """Try a case.

        Args:
            case: One that fits.
            spoken: For a recogniser.

        Raises:
            ParleyError: The model failed.
        """
        match self._role:
            case "stt":
                assert spoken
                return await self._hear(spoken)
            case "llm":
                return await self._answer(case)
            case _:
                return await self._speak(case.text)

    async def _hear(self, spoken: Spoken) -> Seen:
        around = np.zeros(int(AROUND_SECONDS * RATE), np.int16)
        samples = np.concatenate([around, spoken.samples, around])
        began = time.perf_counter()
        heard = await self._models.transcribe(TranscribeRequest(samples.tobytes(), RATE), self._context)
        took = time.perf_counter() - began
        return Seen(heard=heard.text, real_time=took / (len(samples) / RATE), voice=spoken.voice, models=self._served)

    async def _answer(self, case: Case) -> Seen:
        assistant = self._assistants[case.assistant or next(iter(self._assistants))]
        messages: list[dict[str, Any]] = [{"role": "system", "content": assistant.instructions}]
        for example in assistant.examples:
            messages += [_message("user", example.user), _message("assistant", example.assistant)]
        for text in case.before:
            messages.append(_message("user", text))
            said, _, _ = await self._chat(messages, (), assistant.max_tokens)
            messages.append(_message("assistant", said))
        messages.append(_message("user", case.text or case.references[0]))
        tools = self._suite.definitions(case)
        answer, calls, first = await self._chat(messages, tools, assistant.max_tokens)
        called = [(call.name, _arguments(call)) for call in calls]
        return Seen(answer=answer, tools=called, first_ms=first, models=self._served)

    async def _chat(
        self, messages: Sequence[dict[str, Any]], tools: tuple[dict[str, Any], ...], most: int
    ) -> tuple[str, list[ToolCall], float | None]:
        text, calls, first, began = "", list[ToolCall](), None, time.perf_counter()
        request = ChatRequest(list(messages), tools, max_tokens=most, temperature=0.0, seed=SEED)
        async with aclosing(self._models.chat(request, self._context)) as chunks:
            async for chunk in chunks:
                if first is None and (chunk.text or chunk.tool_calls):
                    first = round((time.perf_counter() - began) * 1000, 1)
                text += chunk.text
                calls += chunk.tool_calls
        return text.strip(), calls, first

    async def _speak(self, text: str) -> Seen:
        pcm, first, began = b"", None, time.perf_counter()
        async with aclosing(self._models.speak(SpeechRequest(text), self._context)) as chunks:
            async for chunk in chunks:
                if chunk.audio:
                    first = first or round((time.perf_counter() - began) * 1000, 1)
                    pcm += audio.resample(chunk.audio, chunk.sample_rate, RATE)
        took = time.perf_counter() - began
        heard = await self._models.transcribe(TranscribeRequest(pcm, RATE), self._recogniser)
        # What a recogniser makes of what it says: the answer, as somebody hears it.
        length = len(pcm) / 2 / RATE
        real_time = took / length if length else None
        return Seen(answer=heard.text, first_ms=first, real_time=real_time, models=self._served)

    @property
    def _served(self) -> dict[str, str]:
        return {self._role: self.model, **({"stt": self._models.model("stt")} if self._role == "tts" else {})}


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _arguments(call: ToolCall) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(call.arguments or "{}")
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
