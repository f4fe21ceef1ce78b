"""Hosts for engine code that blocks: a child process where it holds the GIL or must be apart, a thread where not.

A child is `python -m serve.worker_main`. Parent and child speak over the child's stdin and stdout in pickled frames,
each behind its length. The parent writes a request and reads answers until the last one:

    ("call", method, arguments)    ->  ("done", value)
    ("stream", method, arguments)  ->  ("item", value)*, ("done", None)     the method gets `emit` first
    ("stop",)                      ->  nothing; `emit` returns True from now on, and the stream ends;
                                       `emit(None)` sends nothing and only asks for that
    any of them                    ->  ("error", error)

`multiprocessing` is not used, since its children import the parent's main module, which is Ray's.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import pickle
import sys
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from serve.errors import DeadlineExceeded, EngineFailed, ParleyError
from serve.worker_main import LENGTH_BYTES, frame

T = TypeVar("T")
Emit = Callable[[T], bool]
"""Hands one item to the listener; True: nobody listens any more, stop."""

_STOP_SECONDS = 2.0
_EXIT_SECONDS = 0.5


class Worker:
    """An object in a child process; starts with the first use, and again after it died. One request at a time.

    Args:
        target: `module:Class` to host; the module should import little.
        arguments: Keyword arguments of the class.
        start_timeout: Seconds until the object must be there.
    """

    def __init__(self, target: str, arguments: dict[str, Any] | None = None, *, start_timeout: float = 30.0) -> None:
        self._target = target
        self._arguments = arguments or {}
        self._start_timeout = start_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._length: int | None = None
        """Of the answer whose body is still to be read: a reader may be cancelled between the two."""
        self._draining: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start the child and wait until its object is there.

        Raises:
            EngineMissing: As the object said.
            EngineFailed: The child did not come up.
        """
        async with self._turn:
            await self._ready()

    async def call(self, method: str, *arguments: Any, within: float) -> Any:
        """Call a method and return what it returns.

        A caller who is cancelled leaves; the call itself ends in its own time, before the next one.

        Raises:
            DeadlineExceeded: No answer in time; the child was killed.
            EngineFailed: The child died, or the method raised what is no ParleyError.
        """

        async def exchange() -> Any:
            async with self._turn:
                process = await self._ready()
                async with self._guarded(process, within):
                    await _write(process, ("call", method, arguments))
                    return _value(await self._read(process))

        task = asyncio.create_task(exchange())
        task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def stream(self, method: str, *arguments: Any, within: float) -> AsyncGenerator[Any, None]:
        """Call a method that takes `emit` first, and yield what it emits; closing stops it.

        Raises:
            DeadlineExceeded: The next item did not come in time; the child was killed.
            EngineFailed: The child died, or the method raised what is no ParleyError.
        """
        async with self._turn:
            process = await self._ready()
            done = False
            try:
                async with self._guarded(process, within):
                    await _write(process, ("stream", method, arguments))
                while True:
                    async with self._guarded(process, within):
                        answer = await self._read(process)
                    done = answer[0] != "item"
                    value = _value(answer)
                    if done:
                        return
                    yield value
            finally:
                if not done and process.returncode is None:
                    # Not awaited here: whoever closes the stream goes on at once, the next request waits for it.
                    self._draining = asyncio.create_task(self._drain(process))

    async def close(self) -> None:
        """End the child, whatever it does."""
        self._closed = True
        if self._process is not None:
            await self._kill(self._process)
        if self._draining is not None:
            await self._draining

    async def _ready(self) -> asyncio.subprocess.Process:
        if self._draining is not None:
            await asyncio.wait([self._draining])
            self._draining = None
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._closed:
            raise EngineFailed("the engine is closed")
        self._length = None
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "serve.worker_main", self._target, str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _python_path()},
        )
        try:
            async with self._guarded(process, self._start_timeout):
                await _write(process, ("start", self._arguments))
                _value(await self._read(process))
        except BaseException:  # also when cancelled: the process must not stay
            self._process = None
            with suppress(ProcessLookupError):
                process.kill()
            raise
        return process

    @asynccontextmanager
    async def _guarded(self, process: asyncio.subprocess.Process, within: float) -> AsyncGenerator[None]:
        """Kill the child when it is late or broken; the next request starts another."""
        try:
            async with asyncio.timeout(within):
                yield
        except TimeoutError:
            await self._kill(process)
            raise DeadlineExceeded("the engine's process did not answer in time and was ended") from None
        except (EOFError, OSError):
            # Its status is known in a moment; killed before that it would be lost.
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _EXIT_SECONDS)
            await self._kill(process)
            raise EngineFailed(f"the engine's process died (status {process.returncode})") from None

    async def _read(self, process: asyncio.subprocess.Process) -> tuple[Any, ...]:
        pipe = process.stdout
        if pipe is None:
            raise EOFError
        if self._length is None:
            self._length = int.from_bytes(await pipe.readexactly(LENGTH_BYTES), "big")
        body = await pipe.readexactly(self._length)
        self._length = None
        return cast("tuple[Any, ...]", pickle.loads(body))  # noqa: S301 written by our own child

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        """Tell the child to stop, and read on to the end of its stream."""
        with suppress(ParleyError):
            async with self._guarded(process, _STOP_SECONDS):
                await _write(process, ("stop",))
                try:
                    while (await self._read(process))[0] == "item":
                        pass
                except asyncio.CancelledError:
                    self._process = None
                    process.kill()  # in the middle of an answer it is of no more use
                    raise

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        if self._process is process:
            self._process = None
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def stream_from_thread(
    run: Callable[[Emit[T]], None], executor: Executor, released: Callable[[], None] = lambda: None
) -> AsyncGenerator[T, None]:
    """Run a blocking function that emits items in a thread, and yield them as they come.

    Closing the generator makes the next `emit` return True; it does not wait for the thread.

    Args:
        run: Gets `emit`, and returns when all is emitted or `emit` has returned True.
        executor: Where the thread comes from.
        released: Called in the loop when the thread has let go, also where it never began.

    Raises:
        EngineFailed: The executor is shut down.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
    stopped = False

    def emit(item: T) -> bool:
        if not stopped:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(items.put_nowait, (item,))
        return stopped

    def body() -> None:
        if not stopped:
            run(emit)

    def end(future: Future[None]) -> None:
        outcome = EngineFailed("the engine is closed") if future.cancelled() else future.exception()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(released)
            loop.call_soon_threadsafe(items.put_nowait, outcome)

    try:
        future = executor.submit(contextvars.copy_context().run, body)
    except RuntimeError:
        released()
        raise EngineFailed("the engine is closed") from None
    future.add_done_callback(end)
    try:
        while (outcome := await items.get()) is not None:
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome[0]
    finally:
        stopped = True


async def _write(process: asyncio.subprocess.Process, message: tuple[Any, ...]) -> None:
    if process.stdin is None:
        raise EOFError
    process.stdin.write(frame(message))
    await process.stdin.drain()


def _value(answer: tuple[Any, ...]) -> Any:
    if answer[0] == "error":
        raise answer[1]
    return answer[1]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of the error of a call that nobody waits for."""
    if not task.cancelled():
        task.exception()


def _python_path() -> str:
    """The child must find this package also where it came by Ray's working directory."""
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
