"""A call without audio: a real session, reception and care, over models that answer from a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from livekit.agents import AgentSession, llm
from livekit.agents.voice import io

from agent.adapters import LanguageModel
from agent.assistants import Assistants
from agent.care import Care
from agent.config import DEFAULT, AgentConfig
from agent.reception import Reception
from serve.client import Models
from serve.config import Routes
from serve.contracts import Capabilities, ChatChunk, ChatRequest, RequestContext, Role, ToolCall
from tests.unit.serve.test_client import FakeResponse

CONTEXT = RequestContext("call")


class FakeEngines:
    """Stands where the handles of all models do.

    Attributes:
        answers: Of the language model: a text, tool calls, or an error, the next one for each question.
        asked: What it was asked, in order.
        read: What it was let read ahead.
        models: The models that were asked, by name.
    """

    def __init__(self, answers: Sequence[Any], capabilities: Capabilities) -> None:
        self.answers = list(answers)
        self.capabilities = capabilities
        self.asked: list[ChatRequest] = []
        self.read: list[ChatRequest] = []
        self.models: list[str] = []

    def __call__(self, model: str, role: Role) -> Any:
        return _FakeHandle(self, model, "")

    def answer(self, model: str, method: str, *request: Any) -> FakeResponse:
        if method == "capabilities":
            return FakeResponse(self.capabilities)
        if method == "prefill":
            self.read.append(request[0])
            return FakeResponse(True)
        assert method == "chat", method
        self.models.append(model)
        self.asked.append(request[0])
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            words = [ChatChunk(f"{word} ") for word in answer.split()]
            return FakeResponse([*words, ChatChunk(finish_reason="stop")])
        if isinstance(answer, ToolCall):
            answer = [ChatChunk(tool_calls=(answer,)), ChatChunk(finish_reason="tool_calls")]
        return FakeResponse(answer if isinstance(answer, list) else [answer])


class _FakeHandle:
    def __init__(self, engines: FakeEngines, model: str, method: str) -> None:
        self._engines, self._model, self._method = engines, model, method

    def options(self, *, method_name: str, stream: bool, session_id: str) -> _FakeHandle:
        return _FakeHandle(self._engines, self._model, method_name)

    def remote(self, *args: Any) -> FakeResponse:
        return self._engines.answer(self._model, self._method, *args)


class Spoken(io.TextOutput):
    """Collects what would be spoken."""

    def __init__(self) -> None:
        super().__init__(label="spoken", next_in_chain=None)
        self.texts: list[str] = []
        self._now = ""
        self._more = asyncio.Event()

    async def capture_text(self, text: str) -> None:
        self._now += text

    def flush(self) -> None:
        if self._now:
            self.texts.append(self._now.strip())
        self._now = ""
        self._more.set()

    async def until(self, text: str, seconds: float = 5.0) -> None:
        """Return once a text has been spoken."""
        async with asyncio.timeout(seconds):
            while text not in self.texts:
                self._more.clear()
                await self._more.wait()


class FakeCall:
    """A call in progress.

    Attributes:
        session: livekit-agents'.
        engines: Behind its models.
        spoken: What was said.
        used: Uses of tools.
        room: Where the caller would be.
        ended: The reason, once the call has ended.
    """

    def __init__(self, config: AgentConfig, answers: Sequence[Any], capabilities: Capabilities) -> None:
        self.engines = FakeEngines(answers, capabilities)
        routes = Routes.model_validate({"stt": "s", "llm": "l", "tts": "t"})
        models = Models(routes, self.engines).choosing({})
        self.model = LanguageModel(models, CONTEXT, config.assistant)
        self.voice, self.ears = SimpleNamespace(), SimpleNamespace()
        self.room: Any = SimpleNamespace(remote_participants={}, name="room")
        self.session: AgentSession[Any] = AgentSession(llm=self.model, user_away_timeout=None)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.care = Care(self.session, config.assistant, self._end)
        self.used: list[dict[str, Any]] = []
        voice, ears = cast(Any, self.voice), cast(Any, self.ears)

        self.reception = Reception(
            Assistants(config), models, self.model, voice, ears, self.care, self.room, CONTEXT, self.used.append
        )
        self.session.on("conversation_item_added", lambda event: self.reception.heard(event.item))
        self.spoken = Spoken()

    async def say(self, words: str, seconds: float = 10.0) -> Any:
        """Say something as the caller; returns when it has been answered."""
        async with asyncio.timeout(seconds):
            return cast(Any, await self.session.run(user_input=words))

    def results(self) -> list[str]:
        """Return the results of tools that the model was told."""
        return [str(each["content"]) for each in self.engines.asked[-1].messages if each["role"] == "tool"]

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


@asynccontextmanager
async def calling(
    config: dict[str, Any],
    answers: Sequence[Any],
    capabilities: Capabilities = Capabilities(tools=True, prefill=True),  # noqa: B008  # it is frozen
) -> AsyncGenerator[FakeCall]:
    """Carry a call with assistants of an agent's configuration."""
    call = FakeCall(AgentConfig.model_validate(config), answers, capabilities)
    try:
        agent = await call.reception.seat(DEFAULT, llm.ChatContext.empty())
        call.session.output.transcription = call.spoken
        await call.session.start(agent, record=False)
        yield call
    finally:
        await call.care.aclose()
        await call.session.aclose()
        await call.reception.aclose()
        await call.model.aclose()
