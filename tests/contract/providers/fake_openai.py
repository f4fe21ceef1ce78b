"""Stands where OpenAI or Azure OpenAI does, and speaks their protocol.

The model repeats the last message as `serve.llm.fake` does, a word a token; the recogniser hears two words in any
sound; the voice hums. Errors have the bodies that OpenAI's have, with words in them that must not be repeated.
"""

from __future__ import annotations

import io
import json
import math
import re
import wave
from typing import Any

from aiohttp import web

from tests.contract.providers.server import KEY, WORD, FakeProvider, Received, Trouble, tone

CONTEXT = 2048
SECRET = "the words of the conversation"
"""Stands in every error's message, as OpenAI quotes requests."""
VOICES = ("alloy", "marin", "nova")


def error(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"message": f"{message} {SECRET}", "type": kind, "param": param, "code": code}}


NO_KEY = Trouble(401, error("Incorrect API key provided:", "invalid_request_error", None, "invalid_api_key"))
NO_RIGHTS = Trouble(403, error("Country, region, or territory not supported", "request_forbidden"))
NO_MONEY = Trouble(
    429, error("You exceeded your current quota,", "insufficient_quota", None, "insufficient_quota"), {"x": "y"}
)
NO_MODEL = Trouble(404, error("The model does not exist", "invalid_request_error", None, "model_not_found"))
BROKEN = Trouble(500, error("The server had an error while processing your request.", "server_error"))
BUSY = Trouble(503, error("The engine is currently overloaded,", "server_error"))
GATEWAY = Trouble(502, f"<html>Bad gateway {SECRET}</html>")


def too_many(seconds: str) -> Trouble:
    """Return the refusal of too many requests."""
    body = error("Rate limit reached", "requests", None, "rate_limit_exceeded")
    return Trouble(429, body, {"Retry-After": seconds})


def wrong(param: str) -> Trouble:
    """Return the refusal of a field."""
    return Trouble(400, error("Invalid value:", "invalid_request_error", param, "invalid_value"))


class FakeOpenAI(FakeProvider):
    """OpenAI, or a server that is compatible."""

    prefix = "/v1"

    @property
    def base_url(self) -> str:
        return f"{self.url}{self.prefix}"

    def authorised(self, request: Received) -> bool:
        return request.headers.get("authorization") == f"Bearer {KEY}"

    async def answer(self, request: Received, trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        if not self.authorised(request):
            return web.json_response(NO_KEY.body, status=401)
        match request.path.removeprefix(self.prefix):
            case "/chat/completions":
                return await self._chat(request.json(), trouble, raw)
            case "/audio/transcriptions":
                return self._transcription(request.form)
            case "/audio/speech":
                return await self._speech(request.json(), trouble, raw)
            case _:
                return web.json_response(error("Unknown request URL:", "invalid_request_error"), status=404)

    async def _chat(self, body: dict[str, Any], trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        words = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
        if words > CONTEXT:
            message = f"This model's maximum context length is {CONTEXT} tokens."
            code = "context_length_exceeded"
            return web.json_response(error(message, "invalid_request_error", "messages", code), status=400)
        events = [json.dumps(event) for event in self._events(body, words)]
        pieces = [f"data: {event}\n\n".encode() for event in [*events, "[DONE]"]]
        return await self.stream(pieces, trouble, raw, "text/event-stream; charset=utf-8")

    def _events(self, body: dict[str, Any], prompt: int) -> list[dict[str, Any]]:
        """Return the chunks of an answer."""
        last = str(body["messages"][-1].get("content") or "")
        if body.get("tools") and "call" in last.lower():
            name = body["tools"][0]["function"]["name"]
            deltas = [
                {"role": "assistant", "content": None},
                {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": name}}]},
                *(
                    {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
                    for part in ('{"ci', 'ty": "', 'Ulm"}')
                ),
                {"tool_calls": [{"index": 1, "id": "call_2", "type": "function", "function": {"name": name}}]},
            ]
            finish, said = "tool_calls", 1
        else:
            for stop in body.get("stop") or ():
                last = last.split(stop)[0]
            words = re.findall(r"\S+", last)
            limit = body.get("max_tokens") or body.get("max_completion_tokens") or 256
            said = min(limit, len(words))
            spoken = ({"content": word if not at else f" {word}"} for at, word in enumerate(words[:limit]))
            deltas = [{"role": "assistant", "content": ""}, *spoken]
            finish = "length" if len(words) > limit else "stop"
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": said,
            "total_tokens": prompt + said,
            "prompt_tokens_details": {"cached_tokens": prompt // 2, "audio_tokens": 0},
        }
        choices: list[list[dict[str, Any]]] = [
            *([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}] for delta in deltas),
            [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}],
        ]
        common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        events: list[dict[str, Any]] = [{**common, "choices": each, "usage": None} for each in choices]
        if body.get("stream_options", {}).get("include_usage"):
            events.append({**common, "choices": [], "usage": usage})
        return events

    def _transcription(self, form: dict[str, list[Any]]) -> web.Response:
        with wave.open(io.BytesIO(form["file"][0])) as file:
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
            seconds, text = file.getnframes() / file.getframerate(), ""
            if any(file.readframes(file.getnframes())):
                text = WORD
        detailed = form["response_format"] == ["verbose_json"]
        if detailed and "whisper" not in form["model"][0]:
            body = error(
                "response_format is not compatible", "invalid_request_error", "response_format", "unsupported_value"
            )
            return web.json_response(body, status=400)
        answer: dict[str, Any] = {"text": f" {text}"}
        if not detailed:
            answer["usage"] = {"type": "tokens", "total_tokens": 16, "input_tokens": 14, "output_tokens": 2}
            return web.json_response(answer)
        middle = seconds / 2
        segment = {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": seconds,
            "text": f" {text}",
            "tokens": [1],
            "temperature": 0.0,
        }
        answer |= {"task": "transcribe", "language": "english", "duration": seconds}
        answer["segments"] = [segment | {"avg_logprob": math.log(0.9), "compression_ratio": 1, "no_speech_prob": 0.0}]
        answer["words"] = [
            {"word": "hello", "start": 0.0, "end": middle},
            {"word": "there", "start": middle, "end": seconds},
        ]
        return web.json_response(answer | {"usage": {"type": "duration", "seconds": math.ceil(seconds)}})

    async def _speech(self, body: dict[str, Any], trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        if body["voice"] not in VOICES:
            return web.json_response(error("Input should be 'nova'", "invalid_request_error", "voice"), status=400)
        if len(body["input"]) > 4096:
            code = "string_above_max_length"
            return web.json_response(error("String too long", "invalid_request_error", "input", code), status=400)
        assert body["response_format"] == "pcm"
        return await self.stream(tone(body["input"], 24_000, body.get("speed", 1.0)), trouble, raw, "audio/pcm")


class FakeAzureOpenAI(FakeOpenAI):
    """Azure OpenAI: a deployment in the path, its own header for the key, a filter's verdict before the answer."""

    deployment = "our-deployment"
    prefix = f"/openai/deployments/{deployment}"

    def authorised(self, request: Received) -> bool:
        assert request.query["api-version"]
        return request.headers.get("api-key") == KEY and "authorization" not in request.headers

    async def answer(self, request: Received, trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        if not self.authorised(request):
            body = {"error": {"code": "401", "message": f"Access denied due to invalid subscription key {SECRET}"}}
            return web.json_response(body, status=401)
        if not request.path.startswith(self.prefix):
            body = {"error": {"code": "DeploymentNotFound", "message": f"The API deployment does not exist. {SECRET}"}}
            return web.json_response(body, status=404)
        return await super().answer(request, trouble, raw)

    def _events(self, body: dict[str, Any], prompt: int) -> list[dict[str, Any]]:
        verdict = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
        first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [verdict]}
        return [first, *super()._events(body, prompt)]
