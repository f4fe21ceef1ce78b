"""The child's side of `serve.worker`; kept apart so that a child loads next to nothing."""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import select
import signal
import sys
import traceback
from typing import Any, BinaryIO

from serve.errors import EngineFailed, ParleyError

LENGTH_BYTES = 4
_PR_SET_PDEATHSIG = 1


def frame(message: tuple[Any, ...]) -> bytes:
    """Return a message as it goes over the pipe."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class _Channel:
    def __init__(self) -> None:
        # C libraries print to fd 1 as they like: it becomes stderr, and the answers get a descriptor of their own.
        self._requests = os.fdopen(os.dup(0), "rb", buffering=0)
        self._answers: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self.stopped = False

    def read(self) -> tuple[Any, ...] | None:
        head = self._exactly(LENGTH_BYTES)
        body = self._exactly(int.from_bytes(head, "big")) if head else b""
        return pickle.loads(body) if body else None  # noqa: S301 written by our own parent

    def write(self, *message: Any) -> None:
        self._answers.write(frame(message))
        self._answers.flush()

    def emit(self, item: Any) -> bool:
        """Send one item, or nothing for None; True: the parent wants no more."""
        if not self.stopped:
            if item is not None:
                self.write("item", item)
            # In the middle of a stream the parent writes nothing but "stop", or goes away.
            self.stopped = bool(select.select([self._requests], [], [], 0)[0])
            if self.stopped and self.read() is None:
                os._exit(0)
        return self.stopped

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            piece = self._requests.read(size - len(received))
            if not piece:
                return b""
            received += piece
        return bytes(received)


def _answer(channel: _Channel, hosted: Any, request: tuple[Any, ...]) -> None:
    kind, name, arguments = request
    try:
        if kind == "stream":
            channel.stopped = False
            getattr(hosted, name)(channel.emit, *arguments)
            channel.write("done", None)
        else:
            channel.write("done", getattr(hosted, name)(*arguments))
    except ParleyError as error:
        channel.write("error", error)
    except Exception as error:  # an engine's library raises anything; the parent is told
        # Where it happened, never what was said.
        sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
        channel.write("error", EngineFailed(f"{type(hosted).__name__}.{name} raised {type(error).__name__}"))


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main(target: str, parent: int) -> None:
    """Host `target` until the parent closes the pipe."""
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    channel = _Channel()
    started = channel.read()
    if started is None:
        return
    module, name = target.split(":")
    try:
        hosted = getattr(importlib.import_module(module), name)(**started[1])
    except ParleyError as error:
        return channel.write("error", error)
    except Exception as error:  # the same while it loads
        traceback.print_exc()
        return channel.write("error", EngineFailed(f"{target} did not start: {type(error).__name__}"))
    channel.write("done", None)
    while (request := channel.read()) is not None:
        if request[0] != "stop":  # one that crossed the end of its stream
            _answer(channel, hosted, request)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
