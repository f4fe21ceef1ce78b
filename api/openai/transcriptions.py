"""Transcriptions of recordings: a form with a file of any common container."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api import media, multipart
from api.openai import parameters, subtitles
from api.openai.catalog import Catalog
from api.openai.errors import Refused
from api.openai.streams import EVENTS, Streamed, event, while_connected
from api.openapi import EVENT_STREAM
from serve.contracts import SAMPLE_WIDTH, TranscribeRequest, Transcript

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "chunking_strategy": ("auto",),
    "include[]": (),
    "known_speaker_names[]": (),
    "known_speaker_references[]": (),
    "temperature": ("0", "0.0"),
}


class TranscriptionRequest(BaseModel):
    """A recording that wants its text."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    model: str = Field(min_length=1, description="A model's name, or `parley-stt`", examples=["parley-stt"])
    language: str | None = Field(default=None, max_length=35, description="BCP 47, as `en`", examples=["en"])
    prompt: str | None = Field(default=None, max_length=4096, description="Names and words that are likely to occur")
    response_format: Literal["json", "verbose_json", "text", "srt", "vtt"] = "json"
    timestamp_granularities: list[Literal["segment", "word"]] = Field(
        default=["segment"], alias="timestamp_granularities[]", description="Of verbose_json"
    )
    stream: bool = Field(default=False, description="Answer by server-sent events; with json and text only")


def _form() -> dict[str, Any]:
    """Describe the form for the documentation: FastAPI's own way would need another package."""
    schema = TranscriptionRequest.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "wav, mp3, m4a, mp4, flac, ogg, opus or webm"}
    schema = {**schema, "properties": {"file": file, **schema["properties"]}, "required": ["file", "model"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript, in the form that `response_format` names",
        "content": {
            "application/json": {
                "example": {"text": "hello there", "usage": {"type": "duration", "seconds": 2}},
            },
            "text/plain": {"example": "1\n00:00:00,310 --> 00:00:01,120\nhello there\n"},
            EVENTS: {**EVENT_STREAM, "example": 'data: {"type": "transcript.text.done", ...}\n\n'},
        },
    }
}


@router.post(
    "/audio/transcriptions",
    operation_id="create_transcription",
    summary="Transcribe a recording",
    response_model=None,
    openapi_extra=_form(),
    responses=_RESPONSES,
)
async def transcriptions(request: Request) -> Response:
    """Transcribe a recording of one audio stream, of up to 25 MB and ten minutes unless the profile says otherwise."""
    catalog: Catalog = request.app.state.catalog
    config = request.app.state.config
    wanted, file = _parse(request.headers.get("content-type", ""), await request.body())
    context = catalog.find(wanted.model, "stt").context(config.answer_seconds)
    words = wanted.response_format == "verbose_json" and "word" in wanted.timestamp_granularities

    async def work() -> tuple[Transcript, float]:
        audio = await asyncio.to_thread(media.decode, file, config.max_audio_seconds)
        asked = TranscribeRequest(audio, media.HEARD_RATE, wanted.language, wanted.prompt, words)
        heard = await catalog.models.transcribe(asked, context)
        if words and heard.text and not heard.words:
            problem = f"{heard.model} does not say where words are"
            raise Refused(400, problem, param="timestamp_granularities[]", code="unsupported_parameter")
        return heard, len(audio) / (SAMPLE_WIDTH * media.HEARD_RATE)

    if wanted.stream:
        return await Streamed.begin(request, _events(work()), EVENTS)
    heard, seconds = await while_connected(request.receive, work())
    response = _answer(wanted, heard, seconds)
    response.headers["openai-model"] = heard.model
    return response


def _parse(content_type: str, body: bytes) -> tuple[TranscriptionRequest, bytes]:
    file: bytes | None = None
    fields: dict[str, Any] = {}
    for part in multipart.parse(content_type, body):
        if part.name == "file":
            file = part.data
        elif part.name in ("timestamp_granularities", "timestamp_granularities[]"):
            fields.setdefault("timestamp_granularities[]", []).append(part.text)
        else:
            fields[part.name] = part.text
    try:
        wanted = TranscriptionRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    parameters.check(wanted.model_extra or {}, _NEUTRAL)
    if wanted.stream and wanted.response_format not in ("json", "text"):
        problem = f"{wanted.response_format} cannot be streamed; ask for json"
        raise Refused(400, problem, param="stream", code="unsupported_parameter")
    if file is None:
        raise Refused(400, "file: is missing", param="file", code="missing_required_parameter")
    return wanted, file


async def _events(work: Any) -> AsyncGenerator[str, None]:
    """Send the text: models here give it whole, so there is one piece of it."""
    heard, seconds = await work
    if heard.text:
        yield event({"type": "transcript.text.delta", "delta": heard.text})
    yield event({"type": "transcript.text.done", "text": heard.text, "usage": _usage(seconds)})


def _answer(wanted: TranscriptionRequest, heard: Transcript, seconds: float) -> Response:
    match wanted.response_format:
        case "text":
            return PlainTextResponse(f"{heard.text}\n")
        case "srt":
            return PlainTextResponse(subtitles.srt(subtitles.segments(heard, seconds)))
        case "vtt":
            return Response(subtitles.vtt(subtitles.segments(heard, seconds)), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(_verbose(wanted, heard, seconds))
        case "json":
            return JSONResponse({"text": heard.text, "usage": _usage(seconds)})


def _verbose(wanted: TranscriptionRequest, heard: Transcript, seconds: float) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": heard.language or wanted.language or "",
        "duration": round(seconds, 3),
        "text": heard.text,
        "usage": _usage(seconds),
    }
    if "segment" in wanted.timestamp_granularities:
        # What engines do not tell is null: a made-up probability would be believed.
        unknown: dict[str, Any] = {
            "seek": 0,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": None,
            "compression_ratio": None,
        }
        answer["segments"] = [
            {"id": number, "start": part.start, "end": part.end, "text": part.text, **unknown, "no_speech_prob": None}
            for number, part in enumerate(subtitles.segments(heard, seconds))
        ]
    if "word" in wanted.timestamp_granularities:
        answer["words"] = [{"word": word.text, "start": word.start, "end": word.end} for word in heard.words]
    return answer


def _usage(seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(seconds)}
