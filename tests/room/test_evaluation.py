"""`parley eval` on the cluster of the tests: in calls, and straight at its models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from cluster import status
from cluster.evaluation import command, suite
from cluster.evaluation.command import Wish
from serve.assistant import Assistant
from serve.config import ModelConfig
from tests.conftest import Parley
from tests.room.test_changes import deploy, here, put_back

pytestmark = [pytest.mark.room, pytest.mark.timeout(240)]

FAKE = ModelConfig(name="llm-clerk", engine="fake-llm")
"""Calls its first tool when it is asked to, and repeats the last message otherwise."""

CASES: list[dict[str, Any]] = [
    {
        "name": "hello",
        "say": "Hello, can you hear me?",
        "expect": {"heard": {"max_wer": 0.6}, "answer": {"min_words": 1}},
    },
    {
        "name": "tool",
        "assistant": "clerk",
        "file": {"name": "note.txt", "text": "The shop is closed on Sunday."},
        "say": "Please call the shop.",
        "noise": {"snr": 45},
        "tools": "opening_hours",
        "expect": {
            "heard": {"contains": "call", "max_wer": 0.8},
            "answer": {"contains": "nine"},
            "within": 20,
            "tool": {"name": "opening_hours", "arguments": {}},
        },
    },
    {"name": "cough", "assistant": "clerk", "sound": "cough", "gain": 0.5, "expect": {"answered": False}},
]
TOOLS = {"opening_hours": {"description": "Say when the shop is open."}}


@pytest.fixture(scope="module")
def clerk(parley: Parley) -> Generator[Parley]:
    """Add an assistant with a tool, for the tests of this module."""
    before, _ = here()
    hired = Assistant.model_validate(
        {
            "greeting": "Hello.",
            "tools": ["opening_hours"],
            "models": {"llm": FAKE.name},
            "texts": {"file_read": "Read."},
        }
    )
    agent = before.agent.model_copy(update={"assistants": {"clerk": hired}})
    with put_back(before):
        deploy(before.model_copy(update={"models": [*before.models, FAKE], "agent": agent}))
        yield parley


@pytest.fixture(autouse=True)
async def all_lines_free(parley: Parley) -> AsyncGenerator[None]:
    """Each test begins, and ends, with no call in progress."""
    await parley.until_calls(0)
    yield
    await parley.until_calls(0)


def small(folder: Path, *only: str) -> suite.Suite:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({"cases": CASES, "tools": TOOLS}))
    return suite.load(str(path), only)


async def test_cases_are_tried_in_calls(clerk: Parley, tmp_path: Path) -> None:
    report = await command.evaluate(status.current(), Wish("small"), small(tmp_path, "tool", "cough"))
    by_name = {each["case"]: each for each in report["results"]}
    assert report["counts"]["passed"] == 2, report
    tool = by_name["tool"]
    assert tool["seen"]["voice_to_voice_ms"] > 0
    assert tool["seen"]["voice"] not in ("", "flite:rms")
    assert tool["seen"]["tools"] == [("opening_hours", None)]
    assert tool["seen"]["models"]["llm"] == FAKE.name
    assert report["measures"]["response_rate"]["value"] == 1.0
    assert report["measures"]["word_error_rate"]["cases"] == 1


async def test_cases_are_tried_straight_at_a_model(clerk: Parley, tmp_path: Path) -> None:
    up, loaded = status.current(), small(tmp_path)
    try:
        reports = {
            model: await command.evaluate(up, Wish("small", model=model), loaded)
            for model in (FAKE.name, clerk.routes.model("stt"), clerk.routes.model("tts"))
        }
    finally:
        await asyncio.to_thread(ray.shutdown)
    llm, stt, tts = reports.values()
    states = {each["case"]: each["status"] for each in llm["results"]}
    assert states == {"hello": "passed", "tool": "skipped", "cough": "skipped"}, llm
    assert stt["measures"]["word_error_rate"]["cases"] == 2
    assert stt["measures"]["real_time"]["value"] > 0
    assert tts["measures"]["first_ms"]["cases"] == 2
    assert tts["measures"]["word_error_rate"]["value"] < 0.8
