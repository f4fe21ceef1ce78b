"""Servers on loopback that speak the protocols of providers, as far as their plugins use them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs] it has none
from aiohttp import WSMsgType, web

from tests.contract.conftest import tone

SAID = "hello from far away"
WORDS = ["hello", " from", " far", " away"]
SECRET_TEXT = "words-that-nobody-may-repeat"
Mode = int | str


@dataclass
class FakeProvider:
    """One server for all of them; each has paths of its own.

    Attributes:
        address: http://127.0.0.1:port.
        modes: What the next requests meet, the last one again and again: "ok", a status, "silent" (no answer),
            "stalls" (half of one), "cut" (half of one, then the connection breaks).
        headers: Of refusals.
        quota: Refusals say that the budget is used up, where the provider has a word for it.
        asked: Path, headers and body of each request.
        ports: The connections that requests came by.
        came: A request came.
        gone: A client left a request without its answer.
    """

    address: str = ""
    modes: list[Mode] = field(default_factory=lambda: ["ok"])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    quota: bool = False
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[Any])
    ports: set[int] = field(default_factory=set[int])
    came: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        self.modes, self.headers, self.quota = ["ok"], {}, False
        self.asked.clear()
        self.ports.clear()
        self.came.clear()
        self.gone.clear()

    async def answer(
        self, request: web.Request, kind: str, chunks: list[bytes], refusal: dict[str, Any]
    ) -> web.StreamResponse:
        try:
            return await self._answered(request, kind, chunks, refusal)
        except asyncio.CancelledError:
            self.gone.set()
            raise

    async def _answered(
        self, request: web.Request, kind: str, chunks: list[bytes], refusal: dict[str, Any]
    ) -> web.StreamResponse:
        await self._note(request)
        assert request.transport is not None
        self.ports.add(request.transport.get_extra_info("peername")[1])
        mode = self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]
        if isinstance(mode, int):
            return web.json_response(refusal, status=mode, headers=self.headers)
        if mode == "silent":
            await asyncio.Event().wait()
        response = web.StreamResponse(headers={"content-type": kind, "x-amzn-requestid": "1"})
        await response.prepare(request)
        for number, chunk in enumerate(chunks):
            if mode != "ok" and number == (len(chunks) + 1) // 2:
                await asyncio.sleep(0.05)
                if mode == "stalls":
                    await asyncio.Event().wait()
                request.transport.abort()
                return response
            await response.write(chunk)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def _note(self, request: web.Request) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.path, headers, await request.read()))
        self.came.set()

    # Deepgram

    async def deepgram_listen(self, request: web.Request) -> web.StreamResponse:
        words = [
            {
                "word": word.strip(),
                "punctuated_word": word.strip(),
                "start": n / 2,
                "end": n / 2 + 0.4,
                "confidence": 0.9,
            }
            for n, word in enumerate(WORDS)
        ]
        alternative = {"transcript": SAID, "confidence": 0.98, "words": words}
        body = {"metadata": {"request_id": "1"}, "results": {"channels": [{"alternatives": [alternative]}]}}
        refusal = {"err_code": "INVALID_AUTH", "err_msg": SECRET_TEXT, "request_id": "1"}
        text = json.dumps(body).encode()
        return await self.answer(request, "application/json", [text[:9], text[9:]], refusal)

    async def deepgram_socket(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        mode = self.modes[0]
        if isinstance(mode, int):
            return web.json_response({"err_code": "INVALID_AUTH", "err_msg": SECRET_TEXT}, status=mode)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        heard, sound = 0, False

        async def result(text: str, final: bool) -> None:
            alternative: dict[str, Any] = {"transcript": text, "confidence": 0.9, "words": []}
            await socket.send_json(
                {
                    **{"type": "Results", "is_final": final, "speech_final": final, "start": 0.0, "duration": 1.0},
                    **{"metadata": {"request_id": "1"}, "channel": {"alternatives": [alternative]}},
                }
            )

        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    heard, sound = heard + len(message.data), sound or any(message.data)
                    if mode == "cut":
                        assert request.transport is not None
                        request.transport.abort()
                    elif any(message.data):
                        await result("".join(WORDS[: 1 + heard // 6400]), False)
                    continue
                kind = json.loads(message.data)["type"]
                if kind == "Finalize" and sound and mode == "ok":
                    await result(SAID, True)
                if kind == "CloseStream" and mode == "ok":
                    await socket.close()
        finally:
            self.gone.set()
        return socket

    async def deepgram_speak(self, request: web.Request) -> web.StreamResponse:
        refusal = {"err_code": "INVALID_AUTH", "err_msg": SECRET_TEXT}
        return await self.answer(request, "audio/l16", _speech(24000), refusal)

    async def deepgram_speak_socket(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            kind = json.loads(message.data)["type"]
            if kind == "Flush":
                for chunk in _speech(24000):
                    await socket.send_bytes(chunk)
                await socket.send_json({"type": "Flushed", "sequence_id": 0})
            elif kind == "Close":
                break
        return socket

    # ElevenLabs

    async def elevenlabs_speak(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, "audio/pcm", _speech(24000), self._elevenlabs_refusal())

    async def elevenlabs_hear(self, request: web.Request) -> web.StreamResponse:
        words = [{"text": word, "start": 0.0, "end": 1.0, "type": "word", "logprob": -0.1} for word in WORDS]
        text = json.dumps({"language_code": "eng", "text": SAID, "words": words}).encode()
        return await self.answer(request, "application/json", [text[:9], text[9:]], self._elevenlabs_refusal())

    async def elevenlabs_socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sound = False
        async for message in socket:
            asked = json.loads(message.data)
            sound = sound or any(base64.b64decode(asked["audio_base_64"]))
            if asked["commit"]:
                for kind in ("committed_transcript", "committed_transcript_with_timestamps"):
                    await socket.send_json({"message_type": kind, "text": SAID if sound else ""})
            elif sound:
                await socket.send_json({"message_type": "partial_transcript", "text": "hello"})
        return socket

    def _elevenlabs_refusal(self) -> dict[str, Any]:
        return {"detail": {"status": "quota_exceeded" if self.quota else "other", "message": SECRET_TEXT}}

    # Cartesia

    async def cartesia_speak(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, "audio/pcm", _speech(24000), {"error": SECRET_TEXT})

    # Anthropic

    async def anthropic_messages(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        usage = {"input_tokens": 20, "output_tokens": 1, "cache_read_input_tokens": 5}
        message: dict[str, Any] = {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "c",
            "usage": usage,
        }
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}}
        ]
        if asked.get("tools"):
            block: dict[str, Any] = {
                "type": "tool_use",
                "id": "toolu_1",
                "name": asked["tools"][0]["name"],
                "input": {},
            }
            events.append({"type": "content_block_start", "index": 0, "content_block": block})
            for part in ('{"city":', ' "Paris"}'):
                delta = {"type": "input_json_delta", "partial_json": part}
                events.append({"type": "content_block_delta", "index": 0, "delta": delta})
        else:
            events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            for word in WORDS:
                delta = {"type": "text_delta", "text": word}
                events.append({"type": "content_block_delta", "index": 0, "delta": delta})
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
            {"type": "message_stop"},
        ]
        chunks = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events]
        refusal = {"type": "error", "error": {"type": "some_error", "message": SECRET_TEXT}}
        return await self.answer(request, "text/event-stream", chunks, refusal)

    # Google

    async def gemini(self, request: web.Request) -> web.StreamResponse:
        chunks: list[bytes] = []
        for number, word in enumerate(WORDS):
            part: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": word}]}, "index": 0}
            if number == len(WORDS) - 1:
                part["finishReason"] = "STOP"
            counts = {"promptTokenCount": 25, "candidatesTokenCount": number + 1, "totalTokenCount": 26 + number}
            chunks.append(f"data: {json.dumps({'candidates': [part], 'usageMetadata': counts})}\r\n\r\n".encode())
        refusal = {"error": {"code": 0, "message": SECRET_TEXT, "status": "SOME_STATUS"}}
        return await self.answer(request, "text/event-stream", chunks, refusal)

    # Amazon

    async def bedrock(self, request: web.Request) -> web.StreamResponse:
        events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
        events += [("contentBlockDelta", {"delta": {"text": word}, "contentBlockIndex": 0}) for word in WORDS]
        counts = {"inputTokens": 20, "outputTokens": 4, "totalTokens": 24, "cacheReadInputTokens": 5}
        events += [
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": counts, "metrics": {"latencyMs": 1}}),
        ]
        chunks = [_event(kind, json.dumps(body).encode()) for kind, body in events]
        return await self.answer(request, "application/vnd.amazon.eventstream", chunks, {"message": SECRET_TEXT})

    async def polly(self, request: web.Request) -> web.StreamResponse:
        file = io.BytesIO()
        # A decoder wants 2 kB before it says anything.
        seconds = 4.0 if self.modes[0] == "stalls" else 1.0
        soundfile.write(file, np.frombuffer(tone(seconds, 16000), "<i2"), 16000, format="MP3")
        whole = file.getvalue()
        step = len(whole) // 8 + 1
        chunks = [whole[start : start + step] for start in range(0, len(whole), step)]
        return await self.answer(request, "audio/mpeg", chunks, {"message": SECRET_TEXT})


def _speech(rate: int) -> list[bytes]:
    """Return a second of sound in pieces."""
    whole = tone(1.0, rate)
    return [whole[start : start + 4801] for start in range(0, len(whole), 4801)]


def _event(kind: str, body: bytes) -> bytes:
    """Return an event of Amazon's binary stream encoding (application/vnd.amazon.eventstream)."""
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + body
    return message + struct.pack(">I", binascii.crc32(message))


@asynccontextmanager
async def fake_provider() -> AsyncGenerator[FakeProvider]:
    """Run one, on a free port."""
    provider = FakeProvider()
    app = web.Application()
    app.router.add_post("/v1/listen", provider.deepgram_listen)
    app.router.add_get("/v1/listen", provider.deepgram_socket)
    app.router.add_post("/v1/speak", provider.deepgram_speak)
    app.router.add_get("/v1/speak", provider.deepgram_speak_socket)
    app.router.add_post("/v1/text-to-speech/{voice}/stream", provider.elevenlabs_speak)
    app.router.add_post("/v1/speech-to-text", provider.elevenlabs_hear)
    app.router.add_get("/v1/speech-to-text/realtime", provider.elevenlabs_socket)
    app.router.add_post("/tts/bytes", provider.cartesia_speak)
    app.router.add_post("/v1/messages", provider.anthropic_messages)
    app.router.add_post("/{rest:.*streamGenerateContent}", provider.gemini)
    app.router.add_post("/model/{rest:.*}", provider.bedrock)
    app.router.add_post("/v1/speech", provider.polly)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        provider.address = f"http://127.0.0.1:{port}"
        yield provider
    finally:
        await runner.cleanup()
