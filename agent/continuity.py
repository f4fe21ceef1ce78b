"""A turn that outlives its replica: what is kept of it while it goes on, and how the next replica goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from livekit.agents import AgentSession, llm, utils
from livekit.agents.voice import room_io

from agent.adapters import LanguageModel, Voice
from agent.keeper import Answer, Keeper, Left
from agent.mouth import Mouth
from agent.turns import TurnLog

MESSAGE = "parley.message"
"""Attribute of a typed message: its sender's name for it. What is sent again is answered once."""

TYPED_KEPT = 20
_take = cast(Any, room_io.TextInputOptions()).text_input_cb

FOLLOW_SECONDS = 0.25
"""How exactly it is kept how far an answer has been heard."""


class Continuity:
    """Keeps a conversation's turns, and answers what the replica before left open.

    Args:
        keeper: Where they are kept.
        session: Whose turns.
        model: Answers.
        voice: Knows what is being spoken.
        mouth: Knows how far it was heard.
    """

    def __init__(
        self, keeper: Keeper, session: AgentSession[None], model: LanguageModel, voice: Voice, mouth: Mouth
    ) -> None:
        self.open = False
        """The caller's last words have no whole answer yet."""
        self._keeper, self._session, self._model = keeper, session, model
        self._voice, self._mouth = voice, mouth
        self._following: asyncio.Task[None] | None = None
        self._typed: list[str] = list(keeper.left.typed) if keeper.left else []

    async def typed(self, session: AgentSession[Any], message: room_io.TextInputEvent) -> None:
        """Take a typed message, unless it has been taken before: here, or on the replica before."""
        attributes = message.info.attributes if message.info else None
        if message.participant and (name := (attributes or {}).get(MESSAGE, "")[:100]):
            name = f"{message.participant.identity}/{name}"
            if name in self._typed:
                return
            self._typed = [*self._typed[1 - TYPED_KEPT :], name]
        taken = _take(session, message)
        if taken is not None:
            await taken

    def said(self, item: Any) -> None:
        """Keep the conversation: a question is open until its answer has been heard, or cut off by the caller."""
        if not isinstance(item, llm.ChatMessage):
            return
        messages = cast("list[dict[str, Any]]", cast(Any, self._session.history).to_provider_format("openai")[0])
        if item.role == "user":
            self.open = True
            question = item.text_content or ""
            self._keeper.note(history=messages, question=question, answer=Answer().json(), typed=self._typed)
            self._keeper.understood()
        elif item.role == "assistant" and self._model.called and not item.interrupted:
            # A tool is at work: what was said before it is not the answer.
            self._keeper.note(history=messages, answer=Answer().json())
        elif item.role == "assistant":
            self.open = False
            self._keeper.note(history=messages, question=None, answer=Answer().json())

    def spoken(self, state: str, asides: Collection[str]) -> None:
        """Keep how far an answer has been heard, for as long as it is spoken.

        Args:
            state: The agent's new state.
            asides: What is said beside answers, which nobody has to go on with.
        """
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if state == "speaking" and self.open and self._voice.answer.written not in asides:
            self._following = asyncio.create_task(self._follow(self._voice.answer), name="continuity")

    def go_on(self, turns: TurnLog, left: Left) -> None:
        """Answer what the replica before left open: from the first piece that the caller has not heard."""
        answer, model = left.answer, self._model
        assert left.question is not None
        self.open = True
        turns.go_on(left.question, answer.written[: answer.heard])
        if not answer.written:
            self._session.generate_reply()
            return
        asked = replace(model.request(history(left)), so_far=answer.written)

        async def rest() -> AsyncGenerator[str, None]:
            yield answer.written[answer.heard :]
            if not answer.done:
                async with aclosing(model.models.chat(asked, model.context)) as chunks:
                    async for chunk in chunks:
                        yield chunk.text

        self._session.say(rest())

    async def aclose(self) -> None:
        """Stop; the call is over."""
        if self._following is not None:
            await utils.aio.cancel_and_wait(self._following)

    async def _follow(self, answer: Answer) -> None:
        while True:
            answer.played = self._mouth.played
            self._keeper.note(answer=answer.json())
            await asyncio.sleep(FOLLOW_SECONDS)


def history(left: Left | None) -> llm.ChatContext:
    """Return the conversation that was left."""
    context = llm.ChatContext.empty()
    for message in left.history if left else ():
        if message["role"] in ("user", "assistant") and isinstance(message.get("content"), str):
            context.add_message(role=message["role"], content=message["content"])
    return context
