"""Speech as a file of many kinds, sent while it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from api.media import MEDIA_TYPES, Encoder, Format
from api.openai import parameters
from api.openai.catalog import Catalog
from api.openai.streams import Streamed
from serve.contracts import SpeechChunk, SpeechRequest

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

_NEUTRAL: dict[str, tuple[Any, ...]] = {"instructions": ("",), "stream_format": ("audio",)}
_OWN = "default"
"""The voice that stands for the model's own: OpenAI's clients must name one."""


class SpeechCreateRequest(BaseModel):
    """A text that wants to be spoken."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"model": "parley-tts", "input": "Good morning.", "voice": "default", "response_format": "mp3"}
            ]
        },
    )

    model: str = Field(min_length=1, description="A model's name, or `parley-tts`")
    input: str = Field(min_length=1)
    voice: str | None = Field(default=None, description="One of the model's voices; `default` is its own")
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    response_format: Format = Field(default="mp3", description="pcm is 24 kHz, 16 bit, mono, little endian")


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The speech, sent while it is made",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()},
    }
}


@router.post(
    "/audio/speech", operation_id="create_speech", summary="Speak", response_class=Response, responses=_RESPONSES
)
async def speech(request: Request, body: Annotated[SpeechCreateRequest, Body()]) -> Response:
    """Speak a text. What fails after the first sound breaks the connection off: the file is then not whole."""
    catalog: Catalog = request.app.state.catalog
    parameters.check(body.model_extra or {}, _NEUTRAL)
    context = catalog.find(body.model, "tts").context(request.app.state.config.answer_seconds)
    voice = None if body.voice in (None, "", _OWN) else body.voice
    chunks = catalog.models.speak(SpeechRequest(body.input, voice=voice, speed=body.speed), context)
    served: list[str] = []
    answer = await Streamed.begin(
        request, _encoded(chunks, body.response_format, served), MEDIA_TYPES[body.response_format]
    )
    answer.headers["openai-model"] = served[0] if served else ""
    return answer


async def _encoded(
    chunks: AsyncGenerator[SpeechChunk, None], form: Format, served: list[str]
) -> AsyncGenerator[bytes, None]:
    """Yield the file's bytes; notes which model served."""
    encoder = Encoder(form)
    async with aclosing(chunks):
        async for chunk in chunks:
            served.append(chunk.model)
            if made := encoder.feed(chunk.audio, chunk.sample_rate):
                yield made
    yield encoder.finish()
