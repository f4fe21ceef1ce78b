"""Whose a line is: told by the task that writes it, by the message, or not at all."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Generator
from io import StringIO
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter

from serve import logs

pytestmark = pytest.mark.unit


@pytest.fixture
def written() -> Generator[StringIO]:
    """Collect what goes to Serve's file, as Serve writes it."""
    logs.install()
    logger, file = logging.getLogger("ray.serve"), StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(JSONFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield file
    logger.removeHandler(handler)
    logger.setLevel(level)


def lines(file: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


async def test_all_tasks_of_a_call_say_whose_they_are(written: StringIO) -> None:
    logger = logging.getLogger("ray.serve.parley")

    async def call(name: str) -> None:
        about = logs.begin(name, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        later = asyncio.create_task(beside())
        about.turn, about.tenant = 3, "acme"
        await later

    async def beside() -> None:
        await asyncio.sleep(0)
        logger.info("a tool failed")

    await asyncio.gather(asyncio.create_task(call("one")), asyncio.create_task(call("two")))
    logger.info("nobody's")
    first, second, third = lines(written)
    assert {first["call"], second["call"]} == {"one", "two"}
    assert (first["turn"], first["tenant"]) == (3, "acme")
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert not {"call", "turn", "tenant", "trace_id"} & third.keys()


async def test_a_message_that_names_a_call_is_that_calls(written: StringIO) -> None:
    logs.begin("mine").turn = 2
    logger = logging.getLogger("ray.serve")
    logger.info("call %s: moved", "other")
    logger.info("call %s: moved", "mine")
    other, mine = lines(written)
    assert (other["call"], "turn" in other) == ("other", False)
    assert (mine["call"], mine["turn"]) == ("mine", 2)
