"""What a chat completion asks for, and what the language model is told of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.openai import parameters
from api.openai.errors import Refused
from serve.contracts import ChatRequest

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": (),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "top_logprobs": (),
    "verbosity": (),
    "web_search_options": (),
}

_FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
EXAMPLES: list[Any] = [
    {"model": "parley-llm", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 40},
    {
        "model": "parley-llm",
        "messages": [{"role": "user", "content": "Weather in Bonn?"}],
        "tools": [_FUNCTION],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
]


class Message(BaseModel):
    """One message, with whatever fields its role has."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class Tool(BaseModel):
    """A function that the model may call."""

    type: Literal["function"]
    function: dict[str, Any]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool = False


class ResponseFormat(BaseModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class ChatCompletionRequest(BaseModel):
    """A conversation that wants its next message."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": EXAMPLES})

    model: str = Field(min_length=1, description="A model's name, `name:adapter`, or `parley-llm`")
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | Tool | None = None
    response_format: ResponseFormat | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1, description="The older name of max_completion_tokens")
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    n: int | None = Field(default=None, ge=1, le=8, description="Answers, made by as many requests at once")
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def check(self) -> None:
        """Refuse what is asked for and cannot be given.

        Raises:
            Refused: Names the parameter.
        """
        parameters.check(self.model_extra or {}, _NEUTRAL)
        form = self.response_format
        if (
            form is not None
            and form.type == "json_schema"
            and not isinstance((form.json_schema or {}).get("schema"), dict)
        ):
            raise Refused(
                400, "json_schema.schema is missing", param="response_format", code="missing_required_parameter"
            )
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise Refused(400, "tool_choice needs tools", param="tool_choice")

    def request(self, adapter: str | None, index: int = 0) -> ChatRequest:
        """Return what the model is told.

        Args:
            adapter: A LoRA adapter's name.
            index: Of the answer, where there are several: a seed must not make them all alike.
        """
        form, choice = self.response_format, self.tool_choice
        return ChatRequest(
            messages=[_plain(message) for message in self.messages],
            tools=tuple(tool.model_dump() for tool in self.tools or ()),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            seed=None if self.seed is None else self.seed + index,
            top_p=self.top_p,
            tool_choice=choice.model_dump() if isinstance(choice, Tool) else choice,
            response_format=form.model_dump(exclude_none=True) if form and form.type != "text" else None,
            adapter=adapter,
        )

    def text(self, name: str) -> str:
        """Return a parameter of text that is not one of the fields, or ""."""
        value: Any = (self.model_extra or {}).get(name)
        return value if isinstance(value, str) else ""


def _plain(message: Message) -> dict[str, Any]:
    """Return a message as engines take it: "developer" is what newer models call the system."""
    plain = message.model_dump(exclude_unset=True)
    return {**plain, "role": "system"} if message.role == "developer" else plain
