"""The part of a profile that describes the agent: who it is, how many calls it takes, how it takes turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from serve.config import Name, Replicas, Resources, Strict
from serve.contracts import Role

APPLICATION, DEPLOYMENT = "agent", "Agent"
"""Where a call is a request, as Serve and its dashboard show it."""

DISPATCHER = ("Dispatcher", "dispatcher")
"""Deployment and application that take LiveKit's jobs and hold the requests of calls."""


class Example(Strict):
    """One exchange that shows the model how to answer; small models need it."""

    user: str
    assistant: str


class Assistant(Strict):
    """Who answers."""

    instructions: str = (
        "You are a friendly voice assistant. Answer in English, in one or two short spoken sentences. "
        "Use plain words, no lists, no symbols."
    )
    examples: list[Example] = Field(default_factory=list[Example])
    greeting: str = Field(default="Hello! How can I help you?", description="Spoken first; empty: the caller begins")
    language: str = "en"
    voice: str | None = None
    max_tokens: int = Field(default=80, ge=1, le=4096)
    models: dict[Role, Name] = Field(
        default_factory=dict[Role, Name], description="Models asked first, by role; the routes stand by"
    )


class Turns(Strict):
    """When a turn ends, and what interrupts an answer. Seconds."""

    draft_silence: float = Field(default=0.096, gt=0, le=1, description="Silence after which a draft is sent ahead")
    end_silence: float = Field(default=0.25, gt=0, le=2, description="Silence that ends an utterance")
    min_delay: float = Field(default=0.45, ge=0, le=5, description="From the end of speech: a finished sentence")
    max_delay: float = Field(default=0.6, ge=0, le=10, description="From the end of speech: one that may go on")
    detector: bool = Field(default=True, description="Judge by the sound of the voice whether a turn is over")
    interrupt_after: float = Field(default=0.3, ge=0, le=5, description="Speech that stops the answer")
    resume_after: float = Field(default=1.5, gt=0, le=10, description="Silence after which a cut answer goes on")


class AgentConfig(Strict):
    """The agent application and its dispatcher."""

    name: Name = Field(default="parley", description="The name under which LiveKit dispatches calls to it")
    calls_per_replica: int = Field(default=4, ge=1, le=200)
    spare_calls: int = Field(
        default=0, ge=0, description="Slots that new calls leave free, for calls whose replica dies or is drained"
    )
    dispatchers: int = Field(default=2, ge=1, le=20, description="Two, so that one may die and calls are still taken")
    replicas: Replicas = Field(default_factory=Replicas)
    resources: Resources = Field(default_factory=Resources)
    assistant: Assistant = Field(default_factory=Assistant)
    turns: Turns = Field(default_factory=Turns)
    state: Literal["embedded", "redis"] = Field(
        default="embedded", description="Where calls keep what they need to survive; redis: at REDIS_URL"
    )


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the dispatcher asks of an agent replica: be in this room until the call ends.

    Attributes:
        call: Id of the call; LiveKit's job id.
        room: Name of the room.
        url: Of LiveKit, as the agent reaches it.
        token: Of the agent's participant.
        identity: Of the agent's participant.
        dispatcher: Id of the dispatcher that holds this request.
        over: Epoch of the lease of an owner who is gone: the call goes on from what the state has kept.
    """

    call: str
    room: str
    url: str
    token: str
    identity: str = ""
    dispatcher: str = ""
    over: int | None = None
