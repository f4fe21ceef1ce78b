"""An utterance on its way to text: pieces in order, drafts at pauses, and no word lost when a replica is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from livekit.agents import stt

from agent.utterance import Utterance
from serve.client import Models
from serve.contracts import ListenRequest, RequestContext, TranscribeRequest, Transcript
from serve.errors import EngineFailed, StreamLost

pytestmark = pytest.mark.unit

RATE = 16000
PIECE = b"\1\0" * (RATE // 5)
INTERIM, PREFLIGHT, FINAL = (
    stt.SpeechEventType.INTERIM_TRANSCRIPT,
    stt.SpeechEventType.PREFLIGHT_TRANSCRIPT,
    stt.SpeechEventType.FINAL_TRANSCRIPT,
)


class FakeModels:
    """Stands where the models' client does: understands a word for each 200 ms."""

    def __init__(self, *, lose_at: int | None = None, broken: bool = False) -> None:
        self.pieces: list[ListenRequest] = []
        self.wholes: list[int] = []
        self.heard: dict[str, bytes] = {}
        self.lose_at = lose_at
        self.broken = broken

    async def listen(self, request: ListenRequest, context: RequestContext) -> Transcript:
        await asyncio.sleep(0)
        if self.lose_at is not None and len(self.pieces) >= self.lose_at:
            raise StreamLost("gone")
        self.pieces.append(request)
        self.heard[request.stream] = self.heard.get(request.stream, b"") + request.audio
        return Transcript(words(self.heard[request.stream]), final=request.last)

    async def transcribe(self, request: TranscribeRequest, context: RequestContext) -> Transcript:
        await asyncio.sleep(0)
        if self.broken:
            raise EngineFailed("broken")
        self.wholes.append(len(request.audio))
        return Transcript(words(request.audio))


def words(audio: bytes) -> str:
    return " ".join(["word"] * (len(audio) // len(PIECE)))


class Listener:
    """Collects what an utterance says."""

    def __init__(self) -> None:
        self.events: list[tuple[stt.SpeechEventType, str]] = []

    def __call__(self, kind: stt.SpeechEventType, text: str) -> None:
        self.events.append((kind, text))

    def texts(self, kind: stt.SpeechEventType) -> list[str]:
        return [text for each, text in self.events if each is kind]


def make(models: Any, *, streaming: bool = True) -> tuple[Utterance, Listener]:
    said = Listener()
    return Utterance(cast(Models, models), RequestContext("c"), RATE, said, streaming=streaming), said


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_pieces_go_out_while_the_person_speaks() -> None:
    models = FakeModels()
    utterance, said = make(models)
    for _ in range(3):
        utterance.push(PIECE)
        await settle()
    assert [piece.sequence for piece in models.pieces] == [0, 1, 2]
    assert said.texts(INTERIM)[-1] == "word word word"
    await asyncio.wait_for(utterance.end(), 1)
    assert models.pieces[-1].last
    assert said.texts(FINAL) == ["word word word"]


async def test_a_draft_is_sent_at_the_first_pause_and_is_final_when_the_turn_ends() -> None:
    models = FakeModels()
    utterance, said = make(models)
    utterance.push(PIECE)
    utterance.draft()
    utterance.draft()
    await settle()
    assert said.texts(PREFLIGHT) == ["word"]
    before = len(models.pieces)
    utterance.push(b"\0\0" * 320)
    await asyncio.wait_for(utterance.end(), 1)
    assert said.texts(FINAL) == ["word"]
    assert len(models.pieces) == before


async def test_speech_after_a_pause_is_joined_to_what_came_before() -> None:
    utterance, said = make(FakeModels())
    utterance.push(PIECE)
    utterance.draft()
    utterance.push(PIECE)  # spoken after the draft was closed: belongs to what follows
    utterance.resume()
    utterance.push(PIECE)
    await asyncio.wait_for(utterance.end(), 1)
    assert said.texts(FINAL) == ["word word word"]


async def test_a_lost_stream_is_sent_whole_to_another_replica() -> None:
    models = FakeModels(lose_at=1)
    utterance, said = make(models)
    for _ in range(4):
        utterance.push(PIECE)
        await settle()
    await asyncio.wait_for(utterance.end(), 1)
    assert models.wholes == [4 * len(PIECE)]
    assert said.texts(FINAL) == ["word word word word"]


async def test_recognisers_that_do_not_stream_get_it_whole() -> None:
    models = FakeModels()
    utterance, said = make(models, streaming=False)
    utterance.push(PIECE * 2)
    await settle()
    assert models.wholes == []
    await asyncio.wait_for(utterance.end(), 1)
    assert models.wholes == [2 * len(PIECE)]
    assert said.texts(FINAL) == ["word word"]


async def test_an_utterance_that_nobody_understands_ends_all_the_same() -> None:
    utterance, said = make(FakeModels(lose_at=0, broken=True))
    utterance.push(PIECE)
    await asyncio.wait_for(utterance.end(), 1)
    assert said.texts(FINAL) == [""]


async def test_closing_stops_everything() -> None:
    utterance, _ = make(FakeModels())
    utterance.push(PIECE)
    utterance.draft()
    await utterance.aclose()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not any(name.startswith("utterance") for name in names)


async def test_what_was_understood_is_told_with_its_language_and_what_was_lost() -> None:
    heard: list[Transcript] = []
    lost: list[bool] = []
    for models, streaming in ((FakeModels(), True), (FakeModels(), False), (FakeModels(broken=True), False)):
        utterance = Utterance(
            cast(Models, models),
            RequestContext("c"),
            RATE,
            Listener(),
            streaming=streaming,
            language="de",
            understood=heard.append,
            lost=lambda: lost.append(True),
        )
        utterance.push(PIECE)
        await asyncio.wait_for(utterance.end(), 1)
        assert {piece.language for piece in models.pieces} <= {"de"}
    assert [each.text for each in heard] == ["word", "word"]
    assert lost == [True]
