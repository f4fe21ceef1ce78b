"""What the assistant says and does by itself: after silence, at the end of the time, when models are down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from livekit.agents import AgentSession, utils
from livekit.agents.voice import SpeechHandle

from agent.texts import Text, text
from serve.assistant import Assistant

logger = logging.getLogger("ray.serve.parley")

GOODBYE_SECONDS = 20.0
"""How long last words may take; then the call ends without them."""

FINISH_SECONDS = 20.0
"""How long a call that has reached its length waits for the end of a sentence."""


class Care:
    """Looks after one call.

    Attributes:
        assistant: Who speaks now.
        language: Of the caller, BCP 47; None: the assistant's.
        hang_up: The assistant has ended the call: whoever is still in the room is to go.
        asides: What was said here; it is no answer to anything.

    Args:
        session: The conversation.
        assistant: Who speaks first.
        end: Ends the call, for a reason.
    """

    def __init__(self, session: AgentSession[Any], assistant: Assistant, end: Callable[[str], None]) -> None:
        self.assistant = assistant
        self.language: str | None = None
        self.hang_up = False
        self.asides: set[str] = set()
        self._session = session
        self._end = end
        self._prompts = 0
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._goodbye: asyncio.Task[None] | None = None
        session.on("agent_state_changed", lambda _: self._stirred.set())
        session.on("user_state_changed", lambda _: self._stirred.set())
        session.on("user_input_transcribed", lambda event: self._on_words(event.transcript))
        session.on("conversation_item_added", lambda event: self._on_words(getattr(event.item, "role", "") == "user"))

    def start(self, begun: float = 0.0) -> None:
        """Begin to look after the call.

        Args:
            begun: Seconds that it has lasted already, on another replica.
        """
        self._tasks += [
            asyncio.create_task(self._watch_silence(), name="care silence"),
            asyncio.create_task(self._watch_length(begun), name="care length"),
        ]

    async def aclose(self) -> None:
        """Stop."""
        await utils.aio.cancel_and_wait(*self._tasks, *([self._goodbye] if self._goodbye else []))

    def say(self, name: Text, file: str = "") -> SpeechHandle | None:
        """Say a sentence that is no part of the conversation, of a file maybe; None where the session is closing."""
        if self._goodbye is not None:
            return None
        words = text(self.assistant, name, self.language).replace("{name}", file)
        self.asides.add(words)
        try:
            return self._session.say(words, add_to_chat_ctx=False)
        except RuntimeError:
            return None

    def unheard(self) -> None:
        """Nothing could transcribe what the caller said: tell them, unless they hear something else now."""
        if self._session.agent_state == "listening":
            self.say("unheard")

    def goodbye(self, words: str, reason: str) -> None:
        """Say last words and end the call; with "", when what is being said has been heard."""
        if self._goodbye is None:
            self._goodbye = asyncio.create_task(self._part(words, reason), name="care goodbye")

    async def _part(self, words: str, reason: str) -> None:
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                speech = self._session.current_speech
                if words:
                    self.asides.add(words)
                    speech = self._session.say(words, allow_interruptions=False)
                if speech is not None:
                    await speech.wait_for_playout()
        except (TimeoutError, RuntimeError) as error:
            logger.warning("the call ends without last words: %s", type(error).__name__)
        self.hang_up = True
        self._end(reason)

    @property
    def _busy(self) -> bool:
        """Somebody speaks, or an answer is on its way."""
        return self._session.agent_state in ("speaking", "thinking") or self._session.user_state == "speaking"

    def _on_words(self, words: Any) -> None:
        if words:
            self._prompts = 0
            self._stirred.set()

    async def _watch_silence(self) -> None:
        while True:
            limits = self.assistant.limits
            self._stirred.clear()
            if self._busy or not limits.silence_seconds:
                await self._stirred.wait()
                continue
            try:
                async with asyncio.timeout(limits.silence_seconds):
                    await self._stirred.wait()
            except TimeoutError:
                if self._prompts >= limits.silence_prompts:
                    return self.goodbye(text(self.assistant, "silence_end", self.language), "silence")
                self._prompts += 1
                self.say("silence")

    async def _watch_length(self, begun: float) -> None:
        clock = asyncio.get_running_loop().time
        start = clock() - begun
        # Whoever takes over may have another limit.
        while not (limit := self.assistant.limits.max_minutes * 60) or clock() - start < limit:
            left = limit - (clock() - start) if limit else 60.0
            await asyncio.sleep(max(0.01, min(left, 60.0)))
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                while self._busy:
                    self._stirred.clear()
                    await self._stirred.wait()
        except TimeoutError:
            logger.info("a call has reached its length in the middle of a sentence")
        self.goodbye(text(self.assistant, "too_long", self.language), "maximum length")
