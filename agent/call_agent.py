"""An assistant as livekit-agents' session knows it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence

from livekit import rtc
from livekit.agents import Agent, ModelSettings, llm, stt

from agent.adapters import Voice
from agent.ears import Ears
from serve.assistant import Assistant


class CallAgent(Agent):
    """The assistant in one call: its nodes are Parley's ears and voice."""

    def __init__(
        self,
        assistant: Assistant,
        ears: Ears,
        voice: Voice,
        history: llm.ChatContext,
        tools: Sequence[llm.Tool] = (),
        *,
        goes_on: bool = False,
    ) -> None:
        super().__init__(instructions=assistant.instructions, chat_ctx=history, tools=[*tools])
        self._ears, self._voice, self._goes_on = ears, voice, goes_on

    async def on_enter(self) -> None:
        """Go on with the caller, where another assistant has handed over."""
        if self._goes_on:
            self.session.generate_reply()

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings
    ) -> AsyncGenerator[stt.SpeechEvent, None]:
        """Hear."""
        async for event in self._ears.transcribe(audio):
            yield event

    async def tts_node(
        self, text: AsyncIterable[str], model_settings: ModelSettings
    ) -> AsyncGenerator[rtc.AudioFrame, None]:
        """Speak."""
        frames = self._voice.speak(text)
        try:
            async for frame in frames:
                yield frame
        finally:
            await frames.aclose()
