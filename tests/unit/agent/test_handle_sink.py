"""The sink that hands records to the API over a handle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.outbox.handle import HandleSink
from serve.errors import BadRequest, Unavailable
from tests.contract.calls_told import whole_call

pytestmark = pytest.mark.unit


async def test_a_sink_that_is_refused_names_the_field_and_one_that_hangs_is_given_up() -> None:
    class Answer:
        cancelled = False

        def __init__(self, work: Any) -> None:
            self._work = work

        def __await__(self) -> Any:
            return self._work.__await__()

        def cancel(self) -> None:
            Answer.cancelled = True

    class Hangs:
        def options(self, *, method_name: str) -> Hangs:
            return self

        def remote(self, bodies: list[bytes]) -> Answer:
            return Answer(asyncio.sleep(60))

    class Refuses(Hangs):
        def remote(self, bodies: list[bytes]) -> Answer:
            async def refuse() -> None:
                raise BadRequest("tenant", "is not known")

            return Answer(refuse())

    told = whole_call()
    with pytest.raises(Unavailable, match=r"within 0\.05 s"):
        await HandleSink(lambda: Hangs(), 0.05).deliver(told.records)
    assert Answer.cancelled
    with pytest.raises(BadRequest, match="tenant"):
        await HandleSink(lambda: Refuses()).deliver(told.records)
