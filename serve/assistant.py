"""Who answers a call, as profiles and the API describe an assistant: character, models, tools, limits, texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serve.config import Name, Strict
from serve.contracts import Role

Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,100}$")]


class McpServer(Strict):
    """A server whose tools the assistant has, by the Model Context Protocol over HTTP."""

    url: str = Field(pattern=r"^https?://[^\s]+$", description="Streamable HTTP; one that ends in /sse: SSE")
    headers: dict[Header, Variable] = Field(
        default_factory=dict[Header, Variable],
        description="Header -> environment variable that holds its value, as Authorization: SHOP_MCP_AUTH",
    )
    tools: tuple[str, ...] | None = Field(default=None, description="Only these of its tools; without: all")


class ToolLimits(Strict):
    """What a tool may take. Seconds."""

    deadline: float = Field(default=10.0, gt=0, le=120, description="After it the model is told that it took too long")
    at_once: int = Field(default=4, ge=1, le=32, description="Tools of one call that run at the same time")
    filler_after: float = Field(default=1.0, ge=0, le=60, description="Then the caller is asked to wait; 0: never")
    max_result: int = Field(default=4000, ge=100, le=100_000, description="Characters of a result; the rest is cut")


class Limits(Strict):
    """When a call comes to an end by itself."""

    max_minutes: float = Field(default=60.0, ge=0, le=1440, description="Then the assistant says goodbye; 0: never")
    silence_seconds: float = Field(default=30.0, ge=0, le=3600, description="Without a word: a prompt; 0: never")
    silence_prompts: int = Field(default=2, ge=0, le=20, description="Then, after another silence, the end")


class Texts(Strict):
    """Sentences that are spoken without a model; what is left out is in `agent/texts.py`, by language."""

    filler: str | None = Field(default=None, description="A tool takes long")
    silence: str | None = Field(default=None, description="Nobody has said anything for a while")
    silence_end: str | None = Field(default=None, description="The end after silence")
    too_long: str | None = Field(default=None, description="The end at `max_minutes`")
    goodbye: str | None = Field(default=None, description="The assistant ends the call, and the model has no words")
    transfer: str | None = Field(default=None, description="Before a caller is put through to a person")
    apology: str | None = Field(default=None, description="No language model answers")
    unheard: str | None = Field(default=None, description="Nothing transcribes what was said")
    file_read: str | None = Field(default=None, description="A file was read; {name} is its name")
    file_refused: str | None = Field(default=None, description="A file was not read; {name} is its name")


class Example(Strict):
    """One exchange that shows the model how to answer; small models need it."""

    user: str = Field(description="What somebody says")
    assistant: str = Field(description="What is answered")


class Assistant(Strict):
    """Who answers."""

    description: str = Field(default="", description="What it is there for, in a line, for those who may hand over")
    instructions: str = (
        "You are a friendly voice assistant. Answer in English, in one or two short spoken sentences. "
        "Use plain words, no lists, no symbols."
    )
    examples: list[Example] = Field(default_factory=list[Example])
    greeting: str = Field(default="Hello! How can I help you?", description="Spoken first; empty: the caller begins")
    language: str = Field(default="en", description="BCP 47; auto: the caller's, where the models can tell")
    voice: str | None = Field(default=None, description="A name that the speech model knows; without: its own voice")
    max_tokens: int = Field(default=80, ge=1, le=4096)
    file_characters: int = Field(
        default=1200, ge=0, le=200_000, description="Of callers' files, in one prompt: the model must have room"
    )
    models: dict[Role, Name] = Field(
        default_factory=dict[Role, Name], description="Models asked first, by role; the routes stand by"
    )
    tools: tuple[str, ...] = Field(default=(), description="Names of tools (docs/tools.md)")
    mcp: tuple[McpServer, ...] = Field(default=(), description="Servers whose tools it has, too")
    tool_limits: ToolLimits = Field(default_factory=ToolLimits)
    limits: Limits = Field(default_factory=Limits)
    texts: Texts = Field(default_factory=Texts)
    numbers: tuple[str, ...] = Field(default=(), description="Telephone numbers whose callers it answers")
    person: str | None = Field(
        default=None,
        pattern=r"^(tel|sip):",
        description="Where transfer_to_person puts callers through: tel:+... or sip:",
    )
