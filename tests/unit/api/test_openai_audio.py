"""Transcriptions and speech of OpenAI's API on fake engines, through OpenAI's own client."""

from __future__ import annotations

from typing import Any, cast

import httpx2
import numpy as np
import openai
import pytest

from api.media import HEARD_RATE, SPOKEN_RATE, decode
from api.openai.streams import BrokenOff
from serve.contracts import Segment, Transcript, Word
from tests.unit.api.openai_app import BASE, Cluster, Handle, Words, client, recording

pytestmark = pytest.mark.unit


async def test_transcription_of_a_recording() -> None:
    cluster = Cluster()
    api = client(cluster)
    heard = await api.audio.transcriptions.create(
        model="parley-stt", file=("a.wav", recording()), language="en", prompt="Parley"
    )
    assert heard.text == "hello there"
    request = cluster.last("stt-fake")
    assert (request.sample_rate, request.language, request.prompt) == (HEARD_RATE, "en", "Parley")
    assert len(request.audio) == pytest.approx(2 * HEARD_RATE, rel=0.01)
    with_raw = await api.audio.transcriptions.with_raw_response.create(model="parley-stt", file=("a.wav", recording()))
    assert with_raw.headers["openai-model"] == "stt-fake"


TRANSCRIPT = Transcript(
    "hello there you",
    language="en",
    words=(Word("hello", 0.0, 0.5), Word("there", 0.5, 1.25), Word("you", 3661.5, 3662.0)),
)


async def test_the_forms_of_a_transcript() -> None:
    cluster = Cluster()
    cluster.handles["stt-fake"] = Handle(Words(TRANSCRIPT))
    api = client(cluster)

    async def ask(form: Any, **more: Any) -> Any:
        file: Any = ("a.wav", recording())
        create: Any = api.audio.transcriptions.create
        return await create(model="stt-fake", file=file, response_format=form, **more)

    assert await ask("text") == "hello there you\n"
    assert await ask("srt") == (
        "1\n00:00:00,000 --> 00:00:01,250\nhello there\n\n2\n01:01:01,500 --> 01:01:02,000\nyou\n"
    )
    assert await ask("vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nhello there\n\n01:01:01.500 --> 01:01:02.000\nyou\n"
    )
    verbose = await ask("verbose_json", timestamp_granularities=["segment", "word"])
    assert (verbose.text, verbose.language, verbose.duration) == ("hello there you", "en", pytest.approx(1.0, abs=0.05))
    assert [segment.text for segment in verbose.segments] == ["hello there", "you"]
    assert [(word.word, word.start) for word in verbose.words] == [("hello", 0.0), ("there", 0.5), ("you", 3661.5)]
    assert cluster.last("stt-fake").words
    assert (await ask("verbose_json")).words is None


async def test_an_engines_own_segments_are_kept_and_escaped() -> None:
    cluster = Cluster()
    cluster.handles["stt-fake"] = Handle(Words(Transcript("a <b>", segments=(Segment("a <b>\n\n", 0, 1),))))
    heard: Any = await client(cluster).audio.transcriptions.create(
        model="stt-fake", file=("a.wav", recording()), response_format="vtt"
    )
    assert heard == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na &lt;b&gt;\n"


async def test_a_streamed_transcript() -> None:
    stream = await client(Cluster()).audio.transcriptions.create(
        model="stt-fake", file=("a.wav", recording()), stream=True
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert cast(Any, events[0]).delta == cast(Any, events[1]).text == "hello there"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"file": ("a.wav", b"no recording at all")}, "file"),
        ({"file": ("a.wav", b"")}, "file"),
        ({"file": ("a.wav", recording(4))}, "file"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "srt", "stream": True}, "stream"),
        ({"temperature": 0.7}, "temperature"),
        ({"include": ["logprobs"]}, "include[]"),
        ({"response_format": "verbose_json", "timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        ({"extra_body": {"beam": "5"}}, "beam"),
    ],
)
async def test_wrong_forms_are_refused_by_name(changes: dict[str, Any], param: str) -> None:
    asked: dict[str, Any] = {"model": "stt-fake", "file": ("a.wav", recording()), **changes}
    with pytest.raises(openai.BadRequestError) as caught:
        await client(Cluster(), max_audio_seconds=3).audio.transcriptions.create(**asked)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', "multipart/form-data; boundary=x"),
        (b"nothing", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"--x\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x"),
    ],
)
async def test_broken_forms_are_refused(content: bytes, kind: str) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(Cluster().app()), base_url=BASE) as http:
        answer = await http.post("/v1/audio/transcriptions", content=content, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_uploads_have_a_limit_of_their_own() -> None:
    api = client(Cluster(), max_upload_mb=1, max_request_mb=0.5)
    await api.audio.transcriptions.create(model="stt-fake", file=("a.wav", recording(50)))
    with pytest.raises(openai.APIStatusError) as caught:
        await api.audio.transcriptions.create(model="stt-fake", file=("a.wav", bytes(1_100_000)))
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    with pytest.raises(openai.APIStatusError) as caught:
        await api.chat.completions.create(model="llm-fake", messages=[{"role": "user", "content": "x" * 600_000}])
    assert caught.value.status_code == 413


@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac", "aac", "pcm"])
async def test_speech_in_every_format(form: Any) -> None:
    cluster = Cluster()
    async with client(cluster).audio.speech.with_streaming_response.create(
        model="parley-tts", input="Good morning.", voice="default", response_format=form, speed=0.5
    ) as answer:
        data = b"".join([part async for part in answer.iter_bytes()])
    assert answer.headers["openai-model"] == "tts-fake"
    assert "content-length" not in answer.headers
    audio = data if form == "pcm" else decode(data, 60)
    seconds = len(audio) / 2 / (SPOKEN_RATE if form == "pcm" else HEARD_RATE)
    assert seconds == pytest.approx(len("Good morning.") * 0.05 / 0.5, abs=0.15)
    assert np.abs(np.frombuffer(audio, "<i2")).max() > 3000
    assert (cluster.last("tts-fake").voice, cluster.last("tts-fake").speed) == (None, 0.5)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"voice": "alloy"}, "voice"),
        ({"speed": 9}, "speed"),
        ({"response_format": "midi"}, "response_format"),
        ({"instructions": "whisper"}, "instructions"),
        ({"stream_format": "sse"}, "stream_format"),
        ({"input": ""}, "input"),
        ({"model": "llm-fake"}, "model"),
    ],
)
async def test_wrong_wishes_for_speech_are_refused_by_name(changes: dict[str, Any], param: str) -> None:
    asked: dict[str, Any] = {"model": "tts-fake", "input": "hello", "voice": "tone", **changes}
    with pytest.raises(openai.BadRequestError) as caught:
        await client(Cluster()).audio.speech.create(**asked)
    assert caught.value.param == param


async def test_speech_that_breaks_off_does_not_look_whole() -> None:
    cluster = Cluster(tts_fake={"fail_after": 5})
    with pytest.raises(BrokenOff):  # what a server makes of it: the connection is cut
        await client(cluster).audio.speech.create(model="tts-fake", input="Good morning to you.", voice="tone")
