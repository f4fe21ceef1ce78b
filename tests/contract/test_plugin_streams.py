"""Plugins while a person speaks, and voices over WebSockets: providers' protocols on loopback."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from serve.contracts import Engine, StreamingSpeechToText
from serve.errors import AuthFailed, ParleyError, ProviderDown
from tests.contract.conftest import tone
from tests.contract.fake_providers import SAID, FakeProvider
from tests.contract.plugin_providers import ask, loaded, provider, server

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

__all__ = ["provider", "server"]  # fixtures


async def heard_in_pieces(engine: Engine, audio: bytes) -> tuple[list[str], Any]:
    assert isinstance(engine, StreamingSpeechToText)
    assert engine.capabilities.streaming
    async with asyncio.timeout(20):
        stream = await engine.open(16000, None)
        interim: list[str] = []
        for start in range(0, len(audio), 6400):
            interim.append(await stream.feed(audio[start : start + 6400]))
            await asyncio.sleep(0.02)
        return interim, await stream.finish()


async def test_deepgram_hears_while_a_person_speaks(provider: FakeProvider) -> None:
    async with loaded("deepgram-stt", provider) as engine:
        interim, result = await heard_in_pieces(engine, tone(2.0, 16000))
    assert SAID.startswith(interim[-1])
    assert interim[-1]
    assert result.text == SAID
    assert result.usage.audio_seconds == pytest.approx(2.0)
    assert result.usage.busy_seconds < 1.0, "the end of the stream is waited for"


async def test_silence_on_a_stream_that_stays_open_is_told_soon(provider: FakeProvider) -> None:
    async with loaded("deepgram-stt", provider) as engine:
        _, result = await heard_in_pieces(engine, bytes(32000))
    assert result.text == ""
    assert result.usage.busy_seconds < 1.5


@pytest.mark.parametrize(("mode", "error"), [(401, AuthFailed), ("cut", ProviderDown)])
async def test_a_stream_that_breaks_says_why(mode: Any, error: type[ParleyError], provider: FakeProvider) -> None:
    async with loaded("deepgram-stt", provider) as engine:
        provider.modes = [mode]
        with pytest.raises(error):
            await heard_in_pieces(engine, tone(2.0, 16000))
        provider.modes = ["ok"]
        assert (await heard_in_pieces(engine, tone(2.0, 16000)))[1].text == SAID


async def test_a_stream_that_never_ends_is_waited_for_and_no_longer(provider: FakeProvider) -> None:
    async with loaded("deepgram-stt", provider, timeouts={"first": 0.4}) as engine:
        provider.modes = ["stalls"]
        with pytest.raises(ProviderDown):
            await heard_in_pieces(engine, tone(0.5, 16000))
        async with asyncio.timeout(2):
            await provider.gone.wait()


async def test_a_dropped_stream_closes_its_connection(provider: FakeProvider) -> None:
    async with loaded("deepgram-stt", provider) as engine:
        stream = await cast("StreamingSpeechToText", engine).open(16000, None)
        await stream.feed(tone(0.2, 16000))
        async with asyncio.timeout(5):
            await provider.came.wait()
            await stream.close()
            await provider.gone.wait()


async def test_elevenlabs_in_real_time_settles(provider: FakeProvider) -> None:
    realtime = {"model": "scribe_v2_realtime"}
    async with loaded("elevenlabs-stt", provider, arguments=realtime, streamed=True, settle_seconds=0.3) as engine:
        interim, result = await heard_in_pieces(engine, tone(1.0, 16000))
        assert interim[-1] == "hello"
        assert result.text == SAID
        assert await ask(engine) == SAID


async def test_deepgram_speaks_by_its_socket(provider: FakeProvider) -> None:
    async with loaded("deepgram-tts", provider, streamed=True) as engine:
        for _ in range(2):
            await ask(engine)
    assert len(provider.asked) == 1, "the socket is not kept"
