"""The part of a profile that describes the agent: who it is, how many calls it takes, how it takes turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, Field, model_validator

from agent.overlap import BACKCHANNELS, STOPS
from agent.sentences import DANGLING
from serve.assistant import Assistant
from serve.config import Name, Replicas, Resources, Strict

APPLICATION, DEPLOYMENT = "agent", "Agent"
"""Where a call is a request, as Serve and its dashboard show it."""

DEFAULT = "default"
"""Name of the assistant that takes calls which ask for no other."""

DISPATCHER = ("Dispatcher", "dispatcher")
"""Deployment and application that take LiveKit's jobs and hold the requests of calls."""

API = ("Api", "api")
"""Deployment and application that store what calls tell (`agent.backend: api`)."""


class Turns(Strict):
    """When a turn ends, and what interrupts an answer. Seconds."""

    draft_silence: float = Field(default=0.096, gt=0, le=1, description="Silence after which a draft is sent ahead")
    end_silence: float = Field(default=0.25, gt=0, le=2, description="Silence that ends an utterance")
    min_delay: float = Field(default=0.45, ge=0, le=5, description="From the end of speech: a finished sentence")
    max_delay: float = Field(default=0.6, ge=0, le=10, description="From the end of speech: one that may go on")
    dangling_delay: float = Field(
        default=1.2, ge=0, le=10, description="From the end of speech: one whose last word is one of `dangling`"
    )
    dangling: tuple[str, ...] = Field(default=DANGLING, description="Words after which a sentence goes on")
    detector: bool = Field(default=True, description="Judge by the sound of the voice whether a turn is over")
    preemptive: bool = Field(
        default=True, description="Begin an answer before the turn is over; false: no tokens for those thrown away"
    )
    interrupt_after: float = Field(default=0.3, ge=0, le=5, description="Speech that stops the answer")
    resume_after: float = Field(default=0.6, gt=0, le=10, description="Silence after which a cut answer goes on")
    backchannels: tuple[str, ...] = Field(
        default=BACKCHANNELS, description="What listeners say to show that they listen: it stops no answer"
    )
    brief: float = Field(
        default=0.8, ge=0, le=2, description="Speech over an answer that stops it only with one of `stops`, if so short"
    )
    stops: tuple[str, ...] = Field(default=STOPS, description="Words that stop an answer however briefly they are said")


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
    assistant: Assistant = Field(default_factory=Assistant, description=f"Who takes calls; its name is {DEFAULT}")
    assistants: dict[Name, Assistant] = Field(
        default_factory=dict[Name, Assistant],
        description="Others, by name; what one leaves out is as the default one has it",
    )
    turns: Turns = Field(default_factory=Turns)
    traces: bool = Field(default=True, description="Trace turns, where OTEL_EXPORTER_OTLP_ENDPOINT says where to")
    state: Literal["embedded", "redis"] = Field(
        default="embedded", description="Where calls keep what they need to survive; redis: at REDIS_URL"
    )
    backend: Literal["api", "jsonl", "none"] = Field(
        default="api",
        description="Who is told of calls, with what was said; api: the API's database; jsonl: the file records.jsonl "
        "beside the outbox",
    )

    @model_validator(mode="after")
    def _complete(self) -> AgentConfig:
        if DEFAULT in self.assistants:
            raise ValueError(f"an assistant cannot be named {DEFAULT!r}: that is `agent.assistant`")
        for name, other in self.assistants.items():
            own = {each: getattr(other, each) for each in ("description", "numbers")}
            self.assistants[name] = cast(Assistant, _over(self.assistant, other)).model_copy(update=own)
        return self

    def everybody(self) -> dict[str, Assistant]:
        """Return all assistants by name, the default one first."""
        return {DEFAULT: self.assistant, **self.assistants}


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
        metadata: Of the dispatch; `{"assistant": NAME}` says who answers.
    """

    call: str
    room: str
    url: str
    token: str
    identity: str = ""
    dispatcher: str = ""
    over: int | None = None
    metadata: str = ""


def _over(base: BaseModel, changes: BaseModel) -> BaseModel:
    """Return a model laid over another of its class: what was said replaces, mappings and sections key by key."""
    said: dict[str, Any] = {}
    for name in changes.model_fields_set:
        below, value = getattr(base, name), getattr(changes, name)
        if isinstance(value, BaseModel) and isinstance(below, BaseModel):
            value = _over(below, value)
        elif isinstance(value, dict) and isinstance(below, dict):
            value = {**cast("dict[str, Any]", below), **cast("dict[str, Any]", value)}
        said[name] = value
    return base.model_copy(update=said)
