"""Stands where Azure Speech does, and speaks its two REST APIs."""

from __future__ import annotations

import io
import re
import wave
from typing import Any
from xml.etree import ElementTree

from aiohttp import web

from tests.contract.providers.server import KEY, WORD, FakeProvider, Received, Trouble, tone

SECRET = "the words of the conversation"
HEARD: dict[str, Any] = {
    "RecognitionStatus": "Success",
    "Offset": 400000,
    "Duration": 9_000_000,
    "DisplayText": "Hello there.",
    "NBest": [
        {"Confidence": 0.91, "Lexical": WORD, "ITN": WORD, "MaskedITN": WORD, "Display": "Hello there."},
        {"Confidence": 0.4, "Lexical": "yellow hair", "ITN": "", "MaskedITN": "", "Display": "Yellow hair."},
    ],
}
NO_KEY = Trouble(401, {"error": {"code": "401", "message": f"Access denied due to invalid subscription key {SECRET}"}})
NO_RIGHTS = Trouble(403, {"error": {"code": "403", "message": f"Out of call volume quota. {SECRET}"}})
TOO_MANY = Trouble(429, {"error": {"code": "429", "message": f"Too many requests. {SECRET}"}}, {"Retry-After": "1"})
WRONG = Trouble(400, f"Synthesis failed. {SECRET}")
BROKEN = Trouble(503, f"<html>{SECRET}</html>")

_SSML = "{http://www.w3.org/2001/10/synthesis}"


class FakeAzureSpeech(FakeProvider):
    """Hears two words in any sound, and hums; refuses what Azure refuses.

    Attributes:
        statuses: Of the next recognitions, before they are `Success`.
        said: Texts that were to be spoken, as the SSML says them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[str] = []
        self.said: list[str] = []

    async def answer(self, request: Received, trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        if request.headers.get("ocp-apim-subscription-key") != KEY:
            return web.json_response(NO_KEY.body, status=401)
        match request.path:
            case "/speech/recognition/conversation/cognitiveservices/v1":
                return self._recognise(request)
            case "/cognitiveservices/v1":
                return await self._speak(request, trouble, raw)
            case _:
                return web.Response(status=404)

    def _recognise(self, request: Received) -> web.Response:
        if request.query.get("format") != "detailed" or not re.fullmatch(
            r"[a-z]{2,3}-[A-Z]{2}", request.query.get("language", "")
        ):
            return web.Response(status=400, text=f"Bad request {SECRET}")
        if request.headers.get("content-type") != "audio/wav; codecs=audio/pcm; samplerate=16000":
            return web.Response(status=415)
        with wave.open(io.BytesIO(request.body)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        status = self.statuses.pop(0) if self.statuses else "Success"
        return web.json_response(HEARD if status == "Success" else {"RecognitionStatus": status, "Offset": 0})

    async def _speak(self, request: Received, trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        headers = request.headers
        if headers.get("content-type") != "application/ssml+xml" or not headers.get("user-agent"):
            return web.Response(status=415)
        if headers.get("x-microsoft-outputformat") != "raw-24khz-16bit-mono-pcm":
            return web.Response(status=400)
        try:
            speak = ElementTree.fromstring(request.body)
        except ElementTree.ParseError:
            return web.Response(status=400, text=f"SSML parsing error: {SECRET}")
        voice = speak.find(f"{_SSML}voice")
        assert speak.tag == f"{_SSML}speak"
        assert voice is not None
        assert speak.get("{http://www.w3.org/XML/1998/namespace}lang")
        if not voice.get("name", "").endswith("Neural"):
            return web.Response(status=400, text=f"Unsupported voice {SECRET}")
        known = {f"{_SSML}{name}" for name in ("speak", "voice", "prosody", "lang")}
        assert {element.tag for element in speak.iter()} <= known, "a caller's text became markup"
        prosody = voice.find(f".//{_SSML}prosody")
        rate = 0 if prosody is None else int(prosody.get("rate", "").rstrip("%"))
        text = "".join(voice.itertext())
        self.said.append(text)
        return await self.stream(tone(text, 24_000, 1 + rate / 100), trouble, raw, "audio/basic")
