"""Engine code in a child process: what happens to it, and to its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from serve.errors import BadRequest, DeadlineExceeded, EngineFailed, EngineMissing
from serve.worker import Worker

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]
TARGET = "tests.contract.hosted:Hosted"


@pytest_asyncio.fixture(loop_scope="session")
async def worker() -> AsyncIterator[Worker]:
    hosted = Worker(TARGET)
    yield hosted
    await hosted.close()
    assert hosted.pid is None


async def test_values_go_there_and_back_whatever_is_printed(worker: Worker) -> None:
    for value in (b"\x00" * 1_000_000, "text", None, [1, 2.5]):
        assert await worker.call("echo", value, within=20) == value


async def test_the_child_is_light(worker: Worker) -> None:
    modules = set(await worker.call("modules", within=20))
    assert not modules & {"ray", "livekit", "numpy", "pydantic", "asyncio", "multiprocessing"}


async def test_a_refusal_keeps_its_fields(worker: Worker) -> None:
    with pytest.raises(BadRequest) as caught:
        await worker.call("refuse", within=20)
    assert caught.value.field == "audio"


async def test_an_error_tells_no_content_and_leaves_the_child_alive(worker: Worker) -> None:
    await worker.start()
    pid = worker.pid
    with pytest.raises(EngineFailed, match="RuntimeError") as caught:
        await worker.call("break_down", within=20)
    assert "conversation" not in str(caught.value)
    assert worker.pid == pid


async def test_death_is_a_failure_and_the_next_call_works(worker: Worker) -> None:
    with pytest.raises(EngineFailed, match="status 3"):
        await worker.call("die", within=20)
    assert await worker.call("echo", 1, within=20) == 1


async def test_killed_while_idle(worker: Worker) -> None:
    await worker.start()
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert await worker.call("echo", 1, within=20) == 1


async def test_who_is_late_is_ended(worker: Worker) -> None:
    await worker.start()
    pid = worker.pid
    with pytest.raises(DeadlineExceeded):
        await worker.call("sleep", 60.0, within=0.2)
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert await worker.call("echo", 1, within=20) == 1


async def test_a_cancelled_call_does_not_mix_with_the_next(worker: Worker) -> None:
    await worker.start()
    task = asyncio.create_task(worker.call("sleep", 0.3, within=20))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await worker.call("echo", "mine", within=20) == "mine"


async def test_a_stream_that_is_closed_stops_in_the_child(worker: Worker) -> None:
    await worker.start()
    pid = worker.pid
    numbers = worker.stream("count", 1_000, 0.02, within=20)
    assert [await anext(numbers) for _ in range(3)] == [0, 1, 2]
    await numbers.aclose()
    assert await worker.call("echo", "next", within=20) == "next"
    assert worker.pid == pid, "it was killed instead of stopped"
    assert [n async for n in worker.stream("count", 4, 0.0, within=20)] == [0, 1, 2, 3]


async def test_what_is_missing_is_said() -> None:
    with pytest.raises(EngineMissing, match="install it"):
        await Worker(TARGET, {"missing": True}).start()
    with pytest.raises(EngineFailed, match="did not start"):
        await Worker("tests.contract.hosted:Nobody").start()


async def test_the_child_dies_with_its_parent() -> None:
    program = (
        "import asyncio, os, signal\n"
        "from serve.worker import Worker\n"
        "async def main():\n"
        f"    worker = Worker({TARGET!r}); await worker.start(); print(worker.pid, flush=True)\n"
        "    task = asyncio.create_task(worker.call('sleep', 60.0, within=90)); await asyncio.sleep(0.2)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    pid = int(done.stdout)
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the child outlived its parent")
