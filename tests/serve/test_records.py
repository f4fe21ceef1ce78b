"""Records go from a call's side to the API's database by a Serve handle, in a real cluster."""

from __future__ import annotations

import uuid
from collections.abc import Generator

import httpx
import pytest

from agent.outbox.handle import HandleSink
from serve.errors import BadRequest
from tests.conftest import Parley
from tests.contract.calls_told import Told, telling, whole_call

pytestmark = [pytest.mark.serve, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def driver(parley: Parley) -> Generator[None]:
    """Connect this process to the cluster, as a replica is."""
    import ray

    ray.init(address=parley.ray, namespace="serve", log_to_driver=False, logging_level=40)
    yield
    ray.shutdown()


async def test_what_is_delivered_is_in_the_database_once_and_a_refusal_names_its_field(parley: Parley) -> None:
    call = f"call-{uuid.uuid4().hex}"
    sink, told, strangers = HandleSink(), whole_call(call), Told()
    for _ in range(2):
        await sink.deliver(told.records)
    telling(strangers, f"{call}-2").agent_joined("parley", "replica", tenant="ten_nobody")
    with pytest.raises(BadRequest, match="tenant: is not known"):
        await sink.deliver(strangers.records)
    async with httpx.AsyncClient(base_url=parley.page, timeout=20) as http:
        days = {"first": "2026-05-28", "last": "2026-05-28", "call": call, "group_by": "call"}
        used = (await http.get("/api/v1/usage", params=days)).json()["items"]
        assert [(each["call"], each["amounts"]["input_tokens"]) for each in used] == [(call, 2500)]
