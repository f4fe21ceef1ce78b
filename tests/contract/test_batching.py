"""What engines keep that hear utterances of different calls in one pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from serve import registry
from serve.audio import silence
from serve.contracts import BatchingSpeechToText, SpeechToText, TranscribeRequest, Transcript
from serve.errors import BadRequest, ConfigError, EngineMissing, ParleyError
from serve.stt.whisper import Guards, code, tag
from tests.contract import tiny_models
from tests.contract.conftest import load, tone

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

RATES = (8000, 16000, 22050, 48000)
UTTERANCES = [
    TranscribeRequest(tone(0.4 + 0.45 * number, RATES[number % 4], 110.0 * (number + 1)), RATES[number % 4])
    for number in range(8)
]
"""0.4 to 3.55 s, each of another pitch."""


def batching(stt: SpeechToText) -> BatchingSpeechToText:
    if not isinstance(stt, BatchingSpeechToText):
        pytest.skip("hears one utterance at a time")
    return stt


async def together(
    engine: BatchingSpeechToText, requests: Sequence[TranscribeRequest]
) -> list[Transcript | ParleyError]:
    async with asyncio.timeout(60):
        return await engine.transcribe_batch(requests)


def texts(answers: Sequence[Transcript | ParleyError]) -> list[str]:
    return [answer.text if isinstance(answer, Transcript) else answer.code for answer in answers]


async def alone(engine: SpeechToText) -> list[Transcript]:
    async with asyncio.timeout(60):
        return [await engine.transcribe(request) for request in UTTERANCES]


async def test_eight_together_are_heard_as_one_by_one(stt: SpeechToText) -> None:
    engine = batching(stt)
    one_by_one, answers = await alone(engine), await together(engine, UTTERANCES)
    assert texts(answers) == texts(one_by_one)
    assert len(set(texts(answers))) >= 4, "too much alike to tell whether each got its own"
    for answer, single in zip(answers, one_by_one, strict=True):
        assert isinstance(answer, Transcript)
        assert (answer.language, answer.usage.audio_seconds) == (single.language, single.usage.audio_seconds)
        assert answer.usage.busy_seconds > 0


async def test_a_bad_request_fails_by_itself(stt: SpeechToText) -> None:
    engine = batching(stt)
    good = [answer.text for answer in await alone(engine)]
    half, no_rate, quiet = (
        TranscribeRequest(b"\x00\x00\x00", 16000),
        TranscribeRequest(tone(1.0, 16000), 0),
        TranscribeRequest(silence(1.0, 16000), 16000),
    )
    answers = await together(engine, [*UTTERANCES[:3], half, *UTTERANCES[3:6], no_rate, quiet, *UTTERANCES[6:]])
    assert [answer.field for answer in answers if isinstance(answer, BadRequest)] == ["audio", "sample_rate"]
    assert texts(answers) == [*good[:3], "BadRequest", *good[3:6], "BadRequest", "", *good[6:]]


async def test_nothing_together_is_nothing(stt: SpeechToText) -> None:
    assert await together(batching(stt), []) == []


async def whisper(**options: Any) -> BatchingSpeechToText:
    """Return the suite's Whisper, or one of these options, which somebody has to close."""
    engine = await load("faster-whisper")
    if options:
        engine = registry.create("faster-whisper", {**tiny_models.whisper_options(), **options})
        async with asyncio.timeout(60):
            await engine.load()
    assert isinstance(engine, BatchingSpeechToText)
    return engine


async def test_whisper_takes_one_pass_for_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await whisper()
    model = vars(engine)["_model"]
    encode, passes = model.encode, list[int]()

    def counted(features: Any) -> Any:
        passes.append(len(features))
        return encode(features)

    monkeypatch.setattr(model, "encode", counted)
    await together(engine, UTTERANCES)
    assert passes == [8]


async def test_whisper_hears_with_each_callers_own_names_and_language() -> None:
    engine = await whisper()
    single = await engine.transcribe(UTTERANCES[1])
    audio, rate = UTTERANCES[1].audio, UTTERANCES[1].sample_rate
    requests = [
        TranscribeRequest(audio, rate),
        TranscribeRequest(audio, rate, prompt="Siobhan, Parley"),
        TranscribeRequest(audio, rate, prompt="x" * 5000),
        TranscribeRequest(audio, rate, language="de-AT"),
        TranscribeRequest(audio, rate, language="jv"),
        TranscribeRequest(audio, rate, language="tlh"),
    ]
    *answers, refused = await together(engine, requests)
    assert isinstance(refused, BadRequest)
    assert refused.field == "language"
    heard = [answer for answer in answers if isinstance(answer, Transcript)]
    assert [answer.language for answer in heard[-2:]] == ["de", "jv"]
    assert all(answer.text for answer in heard)
    assert heard[0].text == single.text


async def test_whisper_says_where_words_are() -> None:
    engine = await whisper()
    [answer] = await together(engine, [TranscribeRequest(UTTERANCES[5].audio, UTTERANCES[5].sample_rate, words=True)])
    assert isinstance(answer, Transcript)
    assert " ".join(word.text for word in answer.words) == answer.text
    places = [place for word in answer.words for place in (word.start, word.end)]
    assert places == sorted(places)
    assert all(word.confidence is not None and 0 < word.confidence <= 1 for word in answer.words)


async def test_whisper_hears_beyond_its_window() -> None:
    engine = await whisper(skip_silence=False)
    try:
        long = TranscribeRequest(b"".join(tone(13.0, 16000, hz) for hz in (220.0, 440.0, 660.0, 880.0, 1100.0)), 16000)
        answers = await together(engine, [UTTERANCES[0], long])
    finally:
        await engine.close()
    assert all(isinstance(answer, Transcript) for answer in answers)
    short, whole = [answer for answer in answers if isinstance(answer, Transcript)]
    assert short.text == (await (await whisper()).transcribe(UTTERANCES[0])).text
    assert len(whole.segments) >= 3
    assert whole.segments[-1].end > 60
    assert whole.usage.audio_seconds == pytest.approx(65.0)


async def test_whisper_that_repeats_itself_is_not_believed() -> None:
    endless = {"model": str(tiny_models.whisper(None)), "max_tokens": 60, "language": "en"}
    request = TranscribeRequest(tone(2.0, 16000), 16000)
    guarded, bare = await whisper(**endless), await whisper(**endless, compression=None, log_probability=None)
    try:
        said, made_up = await guarded.transcribe(request), await bare.transcribe(request)
    finally:
        await asyncio.gather(guarded.close(), bare.close())
    assert len(made_up.text.split()) == 60
    assert said.text == ""
    assert said.confidence is None


@pytest.mark.parametrize(
    ("name", "options", "choices"),
    [
        ("faster-whisper", {"model": "lage-v3-turbo"}, "large-v3-turbo"),
        ("faster-whisper", {**tiny_models.whisper_options(), "language": "tlh"}, "language"),
        ("faster-whisper", {**tiny_models.whisper_options(), "compute_type": "float16"}, "float16"),
        ("onnx-asr", {"model": "parakit"}, "nemo-parakeet-tdt-0.6b-v3"),
    ],
)
async def test_a_wrong_option_is_named(name: str, options: dict[str, Any], choices: str) -> None:
    async def loaded() -> None:
        engine = registry.create(name, options)
        try:
            await engine.load()
        finally:
            await engine.close()

    with pytest.raises(ConfigError, match=choices):
        await loaded()


async def test_whisper_says_what_is_missing() -> None:
    engine = registry.create("faster-whisper", {"model": "/nowhere"})
    with pytest.raises(EngineMissing, match=r"tokenizer\.json"):
        await engine.load()
    await engine.close()
    engine = registry.create("onnx-asr", {"model": "/nowhere", "type": "nemo-conformer-ctc"})
    with pytest.raises(EngineMissing, match="cannot load /nowhere"):
        await engine.load()
    await engine.close()


async def test_guards() -> None:
    guards = Guards()
    assert guards.silent(0.9, -2.0)
    assert not guards.silent(0.9, -0.2), "the words are certain, whatever it says of silence"
    assert not Guards(no_speech=None).silent(1.0, -9.0)
    assert guards.repeats("thank you. " * 30)
    assert not guards.repeats("What time is it in Paris?")
    assert not guards.repeats("")


async def test_languages_of_whisper_and_of_the_web() -> None:
    known = ["en", "jw", "no"]
    assert [code(each, known) for each in ("en-US", "jv", "nb-NO", None)] == ["en", "jw", "no", None]
    assert [tag(each) for each in known] == ["en", "jv", "no"]


async def test_bench_compares_one_pass_with_one_at_a_time() -> None:
    from cluster.bench import batch

    told: list[str] = []
    async with asyncio.timeout(60):
        report = await batch.batch(str(tiny_models.whisper()), {"device": "cpu"}, told.append, calls=2, rounds=1)
    together, apart, ratio, *_ = [figure.p50 or 0 for figure in report.figures]
    assert ratio == pytest.approx(apart / together)
    assert ratio > 0
    assert report.facts["runs on"] == "cpu, int8_float32"
