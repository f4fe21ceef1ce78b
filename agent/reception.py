"""Who answers in one call, with which tools, in which language; and how another assistant takes over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, RunContext, llm

from agent.adapters import LanguageModel, Voice
from agent.assistants import Assistants
from agent.builtin_tools import SPEAK_SECONDS, built_in, handed_over
from agent.call_agent import CallAgent
from agent.care import Care
from agent.ears import Ears
from agent.files import read_file
from agent.texts import text
from agent.tools import Guard, Toolbox, Used
from serve.assistant import Assistant
from serve.client import Models
from serve.contracts import Capabilities, RequestContext, Transcript
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve.parley")

AUTO = "auto"
"""As an assistant's language: the caller's."""

CAN_SECONDS = 2.0
"""How long a language model may take to say whether it calls tools; one that sleeps, or is away, is taken to."""


class Reception:
    """Seats the assistant of a call.

    Attributes:
        name: Of the assistant who answers.
        changed: Told the name of one who takes over.
        joined: Told when the tools of MCP servers are there, or have been given up.

    Args:
        assistants: Who there is.
        models: Of this call.
        model: Its language model.
        voice: Its voice.
        ears: Its ears.
        care: Looks after it.
        room: Where the caller is.
        context: For questions to models.
        used: Told each use of a tool.
    """

    def __init__(
        self,
        assistants: Assistants,
        models: Models,
        model: LanguageModel,
        voice: Voice,
        ears: Ears,
        care: Care,
        room: rtc.Room,
        context: RequestContext,
        used: Callable[[Used], None] = lambda _: None,
    ) -> None:
        self.name = ""
        self.changed: Callable[[str], None] = lambda name: None
        self.joined: Callable[[], None] = lambda: None
        self._assistants, self._models = assistants, models
        self._model, self._voice, self._ears, self._care = model, voice, ears, care
        self._room, self._context, self._used = room, context, used
        self._toolboxes: list[Toolbox] = []
        self._languages: tuple[str, ...] = ()
        self._joining: asyncio.Task[None] | None = None
        self._handed_over = False
        ears.understood = self._understood
        ears.lost = care.unheard

    @property
    def assistant(self) -> Assistant:
        """Who answers."""
        return self._assistants[self.name]

    async def seat(
        self,
        name: str,
        history: llm.ChatContext,
        *,
        go_on: bool = False,
        can: tuple[Capabilities, Capabilities] | None = None,
    ) -> Agent:
        """Let an assistant answer from now on; return the session's agent.

        Args:
            name: Of the assistant.
            history: What has been said.
            go_on: It takes over, and speaks at once.
            can: What its ears and its voice can do; None: they are asked.

        Raises:
            ParleyError: A model cannot be asked what it can do.
        """
        assistant = self._assistants[name]
        self._models.choose(assistant.models)
        hearing, speaking = can or await asyncio.gather(
            self._models.capabilities("stt", self._context), self._models.capabilities("tts", self._context)
        )
        calls_tools = await self._calls_tools(assistant)
        self.name = name
        self._model.library.know(self._assistants.shelf(name))
        self._model.assistant = self._voice.assistant = self._care.assistant = assistant
        self._ears.streaming = hearing.streaming
        self._languages = speaking.languages
        auto = assistant.language == AUTO
        self._ears.asked = None if auto else listed(assistant.language, hearing.languages)
        if not auto or self._care.language is None:
            self._ears.language = "" if auto else assistant.language
            self._voice.language = None if auto else assistant.language
            self._care.language = None if auto else assistant.language
        guard = Guard(assistant.tool_limits, lambda: self._care.say("filler"), self._used)
        own = [
            *built_in(self, guard, name, self._assistants.named, self._room),
            read_file(self._model.library, guard),
        ]
        toolbox = Toolbox(assistant, own, guard)
        self._toolboxes.append(toolbox)
        self._model.tools = [*toolbox.tools] if calls_tools else []
        agent = CallAgent(assistant, self._ears, self._voice, history, self._model.tools, goes_on=go_on)
        if self._joining is not None:
            self._joining.cancel()
        if toolbox.remote and calls_tools:
            self._joining = asyncio.create_task(self._join(agent, toolbox), name="mcp tools")
        return agent

    async def hand_over(self, name: str, context: RunContext[Any]) -> Agent:
        """Return another assistant, which has taken over."""
        session: AgentSession[Any] = context.session
        if self._handed_over:
            raise llm.ToolError("the caller has said nothing since the last hand-over; answer them yourself")
        history = session.current_agent.chat_ctx.copy(exclude_instructions=True)
        call = context.function_call
        history.insert(call.model_copy())
        output = llm.FunctionCallOutput(name=call.name, call_id=call.call_id, output=handed_over(name), is_error=False)
        history.insert(output)
        try:
            await self._assistants.ready(name)
            agent = await self.seat(name, history, go_on=True)
        except ParleyError as error:
            self._models.choose(self.assistant.models)
            raise llm.ToolError(f"{name} is not there now ({error.code})") from None
        self._handed_over = True
        self.changed(name)
        return agent

    def goodbye(self, words: str) -> None:
        """Say goodbye, then end the call; what the model has said beside it is goodbye enough."""
        if self._model.spoke:
            words = ""
        elif not words:
            words = text(self.assistant, "goodbye", self._care.language)
        self._care.goodbye(words, "the assistant ended the call")

    async def announce_transfer(self) -> None:
        """Tell the caller that they are put through; returns when they have heard it."""
        speech = None if self._model.spoke else self._care.say("transfer")
        if speech is not None:
            try:
                await asyncio.wait_for(speech.wait_for_playout(), SPEAK_SECONDS)
            except TimeoutError:
                logger.info("a transfer was not announced in time")

    def heard(self, item: llm.ChatItem) -> None:
        """Follow the conversation: once the caller has said something, a hand-over may follow again."""
        if isinstance(item, llm.ChatMessage) and item.role == "user":
            self._handed_over = False

    @property
    def joining(self) -> bool:
        """Tools of MCP servers are awaited."""
        return self._joining is not None and not self._joining.done()

    async def aclose(self) -> None:
        """Close the connections of tools."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait({self._joining})
        await asyncio.gather(*(toolbox.aclose() for toolbox in self._toolboxes))

    async def _calls_tools(self, assistant: Assistant) -> bool:
        """Return whether the assistant's language model calls tools; nobody is asked where there are none."""
        if not assistant.tools and not assistant.mcp:
            return False
        try:
            can = await self._models.capabilities("llm", replace(self._context, timeout=CAN_SECONDS))
        except ParleyError as error:
            logger.info("it is not known whether the language model calls tools (%s)", error.code)
            return True
        if not can.tools:
            logger.warning("the language model calls no tools: the assistant goes without")
        return can.tools

    async def _join(self, agent: Agent, toolbox: Toolbox) -> None:
        """Give the agent the tools of its MCP servers: nobody waits for them before the greeting."""
        before = len(toolbox.tools)
        await toolbox.connect()
        if len(toolbox.tools) > before:
            await agent.update_tools([*toolbox.tools])
            if self._model.assistant is self.assistant and self._toolboxes[-1] is toolbox:
                self._model.tools = [*toolbox.tools]
        self.joined()

    def _understood(self, transcript: Transcript) -> None:
        """Follow the caller's language, where the assistant does and the recogniser tells it."""
        language = transcript.language
        if self.assistant.language != AUTO or not language or not transcript.text:
            return
        self._ears.language = self._care.language = language
        self._voice.language = listed(language, self._languages)


def listed(language: str, languages: Sequence[str]) -> str | None:
    """Return a language as a model lists it: itself, else the first with the same primary tag, else None."""
    if language in languages:
        return language
    primary = _primary(language)
    return next((each for each in languages if _primary(each) == primary), None)


def _primary(language: str) -> str:
    return language.replace("_", "-").split("-")[0].lower()
