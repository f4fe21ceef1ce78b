"""Real calls: real livekit-server, real models, a robot for a caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

import jiwer
import pytest
from livekit import api, rtc

from cluster.call import Utterance, place, report
from cluster.robot import LineBusy, Robot
from tests.conftest import Parley

pytestmark = [pytest.mark.room, pytest.mark.timeout(180)]

QUESTION = "Hello, can you hear me?"
LONG = "Please tell me a long story about the sea."

Say = Callable[[str], Utterance]


@pytest.fixture(autouse=True)
async def all_lines_free(parley: Parley) -> AsyncGenerator[None]:
    """Each test begins, and ends, with no call in progress."""
    await parley.until_calls(0)
    yield
    await parley.until_calls(0)


def words(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum() or char.isspace())


async def test_a_question_is_heard_and_answered(parley: Parley, say: Say) -> None:
    result = report(await place(parley.page, [say(QUESTION)], turns=2))
    assert result["summary"]["failed"] == 0, result
    for turn in result["calls"][0]["turns"]:
        assert jiwer.wer(words(QUESTION), words(turn["heard"])) <= 0.5
        assert turn["answer"]
        assert turn["voice_to_voice_ms"] > 0
        assert all(isinstance(value, int) for value in turn["stages"].values()), turn


async def test_barge_in_stops_the_voice(parley: Parley, say: Say) -> None:
    async with Robot(parley.page) as robot:
        await robot.answered()
        await robot.heard_after(robot.joined, 10)
        await robot.quiet(0.5, 15)
        asked = await robot.say(say(LONG).samples)
        began = await robot.heard_after(asked, 20)
        # Talk over the answer as soon as it has begun.
        spoken = asyncio.create_task(robot.say(say("Stop, stop, please stop talking now.").samples))
        started = time.perf_counter()
        await robot.until(lambda: robot.state == "listening", 10, "end of the answer")
        first = await asyncio.wait_for(robot.turns.get(), 10)
        await spoken
        assert first["interrupted"], first
        stages = {each["stage"]: each for each in first["timeline"]}
        assert stages.keys() == {"stt", "endpointing", "llm", "tts"}
        assert stages["stt"]["to_ms"] <= stages["endpointing"]["to_ms"]
        assert stages["llm"]["to_ms"] <= stages["tts"]["to_ms"] <= first["voice_to_voice_ms"] + 50
        cut = next(sound for sound in robot.sounds if sound.began >= began)
        assert cut.ended - started < 3


async def test_a_back_channel_does_not_end_an_answer(parley: Parley, say: Say) -> None:
    async with Robot(parley.page) as robot:
        await robot.answered()
        await robot.heard_after(robot.joined, 10)
        await robot.quiet(0.5, 15)
        asked = await robot.say(say(LONG).samples)
        await robot.heard_after(asked, 20)
        said = await robot.say(say("Okay.").samples)
        # The voice holds while somebody speaks, and goes on where it held.
        async with asyncio.timeout(6):
            while robot.sounds[-1].ended < said + 1.5:  # noqa: ASYNC110  # no event tells it
                await asyncio.sleep(0.05)
        assert robot.turns.empty(), robot.turns.get_nowait()


async def test_the_call_over_the_cap_is_told_busy_and_rung_when_a_line_is_free(parley: Parley) -> None:
    async with AsyncExitStack() as stack:
        robots = [await stack.enter_async_context(Robot(parley.page)) for _ in range(parley.profile_calls)]
        for robot in robots:
            await robot.answered()
        async with Robot(parley.page) as late:
            with pytest.raises(LineBusy):
                await late.answered()
            assert time.perf_counter() - late.joined < 3
            assert late.busy_position == 1
            await robots[0].aclose()
            await late.answered(wait=20)
            assert late.busy_position is None
            await parley.until_calls(parley.profile_calls)


async def test_calls_at_once_do_not_hear_each_other(parley: Parley, say: Say) -> None:
    questions = ["What is the capital of France?", "Please count to three."]
    first, second = await asyncio.gather(*(place(parley.page, [say(question)], turns=1) for question in questions))
    for result, question, other in ((first, *questions), (second, *reversed(questions))):
        turn = result[0].turns[0]
        assert turn.error is None
        assert jiwer.wer(words(question), words(turn.heard)) < jiwer.wer(words(other), words(turn.heard))


async def test_who_leaves_frees_everything(parley: Parley) -> None:
    async with Robot(parley.page) as robot:
        await robot.answered()
        await parley.until_calls(1)
    await parley.until_calls(0, 8)


async def test_who_leaves_at_once_frees_everything(parley: Parley) -> None:
    async with Robot(parley.page):
        pass
    await asyncio.sleep(0.5)  # the job may still be on its way to an agent
    await parley.until_calls(0, 12)


async def test_typed_messages_are_answered_with_the_voice(parley: Parley) -> None:
    async with Robot(parley.page) as robot:
        await robot.answered()
        await robot.heard_after(robot.joined, 10)
        await robot.quiet(0.5, 15)
        when = time.perf_counter()
        await robot.type("What is your name?")
        await robot.heard_after(when, 20)
        turn = await asyncio.wait_for(robot.turns.get(), 20)
        assert turn["heard"] == "What is your name?"
        assert turn["answer"]
        assert turn["voice_to_voice_ms"] is not None
        assert [each["stage"] for each in turn["timeline"]] == ["llm", "tts"]


async def test_a_recording_has_both_sides(parley: Parley, say: Say) -> None:
    import soundfile  # pyright: ignore[reportMissingTypeStubs]

    from tests.conftest import ARTIFACTS

    result = (await place(parley.page, [say(QUESTION)], out=ARTIFACTS / "calls"))[0]
    assert result.recording is not None
    both, _ = soundfile.read(result.recording)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    assert both.shape[1] == 2  # pyright: ignore[reportUnknownMemberType]
    assert (abs(both).max(axis=0) > 0.05).all()  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


async def test_a_forged_token_is_refused(parley: Parley) -> None:
    async def forged() -> tuple[str, str]:
        grants = api.VideoGrants(room_join=True, room="somewhere")
        token = api.AccessToken("parley", "not-the-secret-that-the-server-knows").with_identity("x").with_grants(grants)
        return parley.addresses["livekit"] or "", token.to_jwt()

    with pytest.raises(rtc.ConnectError):
        async with Robot(parley.page, forged):
            pass


async def test_calls_leave_no_thread_behind(parley: Parley, say: Say) -> None:
    agents = parley.replicas("agent")

    async def threads() -> int:
        await parley.until_calls(0)
        return sum(agent.num_threads() for agent in agents)

    # Each replica has carried a call: what a first one brings stays.
    await place(parley.page, [say(QUESTION)], calls=3)
    before = await threads()
    for _ in range(3):
        async with Robot(parley.page) as robot:
            await robot.answered()
            await robot.heard_after(robot.joined, 10)
    async with asyncio.timeout(10):
        while await threads() > before + 2:  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0.2)
