"""Azure Speech: what goes over the wire, and what its refusals mean."""

from __future__ import annotations

from typing import Any, cast

import pytest

from serve import registry
from serve.contracts import (
    SpeechRequest,
    TranscribeRequest,
)
from serve.errors import (
    AuthFailed,
    BadRequest,
    ParleyError,
    ProviderDown,
    RateLimited,
)
from tests.contract.conftest import spoken, tone
from tests.contract.providers import KEY_ENV, fake_azure_speech
from tests.contract.providers.conftest import (
    ONCE,
    QUICK,
    SPEECH,
    UTTERANCE,
    failing,
    made,
    proxy,
    used,
)
from tests.contract.providers.fake_azure_speech import FakeAzureSpeech
from tests.contract.providers.server import FakeProvider, Trouble

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (fake_azure_speech.NO_KEY, AuthFailed),
        (fake_azure_speech.NO_RIGHTS, AuthFailed),
        (fake_azure_speech.TOO_MANY, RateLimited),
        (fake_azure_speech.WRONG, BadRequest),
        (fake_azure_speech.BROKEN, ProviderDown),
    ],
)
@pytest.mark.parametrize("name", SPEECH)
async def test_azure_speech_refuses(
    name: str, provider: FakeProvider, trouble: Trouble, kind: type[ParleyError]
) -> None:
    provider.troubles.append(trouble)
    await failing(await proxy(name, provider, **ONCE), kind)


async def test_azure_hears(speech: FakeAzureSpeech) -> None:
    engine = await proxy("azure-speech-stt", speech, profanity="raw")
    result = await engine.transcribe(TranscribeRequest(UTTERANCE.audio, 48_000, language="de"))
    assert (result.text, result.confidence, result.language) == ("Hello there.", 0.91, "de-DE")
    assert result.usage.audio_seconds == pytest.approx(0.5)
    assert speech.received[-1].query == {"language": "de-DE", "format": "detailed", "profanity": "raw"}


@pytest.mark.parametrize("status", ["NoMatch", "InitialSilenceTimeout", "BabbleTimeout"])
async def test_azure_hears_nothing(speech: FakeAzureSpeech, status: str) -> None:
    speech.statuses.append(status)
    assert (await (await proxy("azure-speech-stt", speech)).transcribe(UTTERANCE)).text == ""
    assert len(speech.received) == 1


async def test_azure_gives_up_once(speech: FakeAzureSpeech) -> None:
    speech.statuses.append("Error")
    await used(await proxy("azure-speech-stt", speech, **QUICK))
    assert len(speech.received) == 2


async def test_azure_takes_a_minute(speech: FakeAzureSpeech) -> None:
    engine = await proxy("azure-speech-stt", speech)
    with pytest.raises(BadRequest, match="60 s"):
        await engine.transcribe(TranscribeRequest(tone(60.5, 8000), 8000))
    assert not speech.received


@pytest.mark.parametrize("text", ["</voice><audio src='http://x/'/>", "a < b && c > d", "\"quoted\" & 'single' ]]>"])
async def test_a_text_stays_text_in_ssml(speech: FakeAzureSpeech, text: str) -> None:
    await spoken(await proxy("azure-speech-tts", speech), SpeechRequest(f"Say {text} now", language="de", speed=1.25))
    (said,) = speech.said
    assert said.startswith("Say")
    assert said.endswith("now")
    body = speech.received[-1].body.decode()
    assert '<prosody rate="+25%">' in body
    assert 'xml:lang="de-DE"' in body


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SpeechRequest("x", voice="'/><evil"), "voice"),
        (SpeechRequest("x", language="en'/>"), "language"),
        (SpeechRequest("x", speed=3.0), "speed"),
    ],
)
async def test_azure_is_not_asked_what_it_would_refuse(
    speech: FakeAzureSpeech, request_: SpeechRequest, field: str
) -> None:
    engine = await proxy("azure-speech-tts", speech)
    with pytest.raises(BadRequest) as caught:
        await spoken(engine, request_)
    assert caught.value.field == field
    assert not speech.received


@pytest.mark.parametrize("name", SPEECH)
async def test_the_region_makes_the_address(name: str) -> None:
    engine = cast("Any", registry.create(name, {"region": "westeurope", "key_env": KEY_ENV}))
    await engine.load()
    made.append(engine)
    role = name.rsplit("-", 1)[1]
    assert str(engine._client.http.base_url) == f"https://westeurope.{role}.speech.microsoft.com"
