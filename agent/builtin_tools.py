"""Tools that every assistant may have: end the call, hand over to another assistant, or to a person.

livekit-agents has its own, which need a worker's job context; a call here has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp
from livekit import api, rtc
from livekit.agents import Agent, RunContext, llm

from agent.livekit import livekit_api
from agent.tools import Guard, raw_tool
from serve.assistant import Assistant

logger = logging.getLogger("ray.serve.parley")

TRANSFER_SECONDS = 45.0
"""A person may take so long to pick up."""

SPEAK_SECONDS = 15.0


class Desk(Protocol):
    """What these tools need of the call."""

    def goodbye(self, words: str) -> None:
        """Say goodbye, then end the call."""
        ...

    async def hand_over(self, name: str, context: RunContext[Any]) -> Agent:
        """Return another assistant, which has taken over.

        Raises:
            ToolError: It cannot.
        """
        ...

    async def announce_transfer(self) -> None:
        """Tell the caller; returns when they have heard it."""
        ...


def built_in(
    desk: Desk, guard: Guard, name: str, assistants: Mapping[str, Assistant], room: rtc.Room
) -> list[llm.RawFunctionTool[Any, Any]]:
    """Return the tools of an assistant's call.

    Args:
        desk: The call.
        guard: Bounds them.
        name: Of the assistant.
        assistants: All there are, by name.
        room: Where the caller is.
    """
    return [
        _end_call(desk, guard),
        _hand_over(desk, guard, name, assistants),
        _transfer(desk, guard, assistants[name].person, room),
    ]


def _end_call(desk: Desk, guard: Guard) -> llm.RawFunctionTool[Any, Any]:
    async def run(raw_arguments: dict[str, object], context: RunContext[Any]) -> Any:
        async def work() -> Any:
            desk.goodbye(str(raw_arguments.get("goodbye") or ""))
            return llm.ToolResult("The call ends.", reply_required=False)

        return await guard.run("end_call", work, context, as_is=True)

    description = (
        "End the call. Only when the caller has clearly said that they are done. "
        "Say nothing beside it: your last words go into `goodbye`."
    )
    words = {"type": "string", "description": "Your last words to the caller, one short sentence"}
    return raw_tool("end_call", {"description": description, "parameters": _object({"goodbye": words})}, run)


def _hand_over(
    desk: Desk, guard: Guard, name: str, assistants: Mapping[str, Assistant]
) -> llm.RawFunctionTool[Any, Any]:
    others = {each: assistant for each, assistant in assistants.items() if each != name}

    async def run(raw_arguments: dict[str, object], context: RunContext[Any]) -> Any:
        async def work() -> Any:
            # Small models leave out what is required; whom they mean is clear where it is the one they came from.
            wanted = str(raw_arguments.get("assistant") or next(iter(others), ""))
            if wanted not in others:
                raise llm.ToolError(f"there is no other assistant of this name; there are: {', '.join(others)}")
            agent = await desk.hand_over(wanted, context)
            return agent, llm.ToolResult(handed_over(wanted), reply_required=False)

        return await guard.run("hand_over", work, context, as_is=True)

    known = "; ".join(
        f"{each}: {assistant.description}" if assistant.description else each for each, assistant in others.items()
    )
    wanted = {"type": "string", "enum": list(others), "description": known}
    description = "Hand the call over to another assistant, who knows what has been said. Say nothing beside it."
    schema = {"description": description, "parameters": _object({"assistant": wanted}, "assistant")}
    return raw_tool("hand_over", schema, run)


def handed_over(name: str) -> str:
    """Return what stands in the conversation where an assistant took over."""
    return f"The assistant {name} has taken over, and goes on with the caller."


def _transfer(desk: Desk, guard: Guard, to: str | None, room: rtc.Room) -> llm.RawFunctionTool[Any, Any]:
    async def run(raw_arguments: dict[str, object], context: RunContext[Any]) -> Any:
        async def work() -> Any:
            if to is None:
                raise llm.ToolError("no person's number is configured, so the call cannot be put through")
            sip = rtc.ParticipantKind.PARTICIPANT_KIND_SIP
            caller = next((each for each in room.remote_participants.values() if each.kind == sip), None)
            if caller is None:
                raise llm.ToolError("the caller is not on a telephone line, so the call cannot be put through")
            await desk.announce_transfer()
            await _refer(room.name, caller.identity, to)
            return llm.ToolResult("The caller was put through.", reply_required=False)

        return await guard.run("transfer_to_person", work, context, deadline=TRANSFER_SECONDS, as_is=True)

    description = (
        "Put the caller through to a person. Only when they ask for one, or you cannot help. Say nothing beside it."
    )
    return raw_tool("transfer_to_person", {"description": description, "parameters": _object({})}, run)


async def _refer(room: str, caller: str, to: str) -> None:
    """Ask LiveKit to transfer a telephone call; returns when somebody has picked up.

    Raises:
        ToolError: Nobody has.
    """
    request = api.TransferSIPParticipantRequest(
        room_name=room, participant_identity=caller, transfer_to=to, play_dialtone=True
    )
    try:
        async with livekit_api() as livekit, asyncio.timeout(TRANSFER_SECONDS - SPEAK_SECONDS):
            answer = await livekit.sip.transfer_sip_participant(request)
    except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
        logger.warning("a transfer failed: %s", type(error).__name__)
        raise llm.ToolError("nobody could be reached; the caller is still here") from None
    if answer.status == api.SIPTransferStatus.STS_TRANSFER_FAILED:
        raise llm.ToolError("nobody could be reached; the caller is still here")


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}
