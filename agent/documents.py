"""From the bytes of a file to its text, or to a picture that a model can see. Other people's files are read apart.

A child process with limits of memory, CPU and output does it (`agent/documents_child.py`): a file that breaks the
parser, or makes it work for ever, costs the child and nothing else. It gets none of this process's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from agent import documents_child
from serve.errors import BadRequest, DeadlineExceeded, Overloaded

FILE_BYTES = 10 * 2**20
"""The largest file."""

READ_SECONDS = 15.0
"""How long one may take to read, in all."""

AT_ONCE = 2
"""Files that one process reads at the same time; others wait."""

WAIT_SECONDS = 30.0

END_SECONDS = 5.0

_OUT_BYTES = 4 * 2**20
_CHILD = Path(documents_child.__file__)


class TooLarge(BadRequest):
    """The file is larger than is taken, as it is or unpacked."""


class Unsupported(BadRequest):
    """The file is of a kind that is not taken."""


_ERRORS: dict[str, type[BadRequest]] = {"too_large": TooLarge, "unsupported": Unsupported}


@dataclass(frozen=True, slots=True)
class Document:
    """What was read of a file.

    Attributes:
        name: As the sender calls it.
        kind: Media type, by its content.
        size: Bytes of the file.
        text: Its text; of a picture, "".
        note: What was left out, in words; "" : nothing.
        picture: Of a picture, a `data:` URL as OpenAI's `image_url` takes it.
        knowledge: It is the assistant's, and no caller has sent it.
    """

    name: str
    kind: str
    size: int
    text: str = ""
    note: str = ""
    picture: str | None = None
    knowledge: bool = False


def plain(name: str) -> str:
    """Return a file's name for prompts and pages: no folders, no control characters, not long."""
    last = re.split(r"[/\\]", name)[-1]
    clean = re.sub(r"\s+", " ", "".join(each for each in last if each.isprintable())).strip()
    return (clean if len(clean) <= 100 else f"{clean[:80]}...{clean[-16:]}") or "file"


def code_of(error: BadRequest) -> str:
    """Return the stable code of a refusal."""
    match error:
        case TooLarge():
            return "too_large"
        case Unsupported():
            return "unsupported"
        case _:
            return "unreadable"


async def report(name: str, data: bytes) -> dict[str, Any]:
    """Read a file, and return as plain data what became of it, for those who have no call.

    Returns:
        `status` ("read" or "refused"), `name` (made plain), `kind`, `text`, `note`, `code` and `reason`.

    Raises:
        Overloaded: Too many files are being read.
    """
    found = {"status": "read", "name": plain(name), "kind": "", "text": "", "note": "", "code": "", "reason": ""}
    try:
        document = await read(found["name"], data)
    except BadRequest as error:
        return found | {"status": "refused", "code": code_of(error), "reason": error.problem}
    return found | {"kind": document.kind, "text": document.text, "note": document.note}


def is_picture(data: bytes) -> bool:
    """Return whether the first bytes are those of a picture that is taken."""
    return documents_child.picture(data) is not None


def check_size(size: int) -> None:
    """Refuse a file by its size.

    Raises:
        TooLarge: It has too many bytes.
    """
    if size > FILE_BYTES:
        raise TooLarge("file", f"is larger than {FILE_BYTES // 2**20} MB; send a smaller one, or a part of it")


async def read(name: str, data: bytes, *, pictures: bool = False, within: float = READ_SECONDS) -> Document:
    """Return what is in a file.

    Args:
        name: As the sender calls it; what the file is, is decided by its content.
        data: The whole file.
        pictures: The model sees pictures.
        within: Seconds that reading may take.

    Raises:
        BadRequest: It cannot be read; says why, and what would be right.
        TooLarge, Unsupported: Both are BadRequest.
        Overloaded: Too many files are being read.
    """
    check_size(len(data))
    slots = _slots()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await slots.acquire()
    except TimeoutError:
        raise Overloaded("too many files are being read; send it again in a moment") from None
    try:
        answer = await _ask(json.dumps({"name": name, "pictures": pictures}).encode() + b"\n", data, within)
    except DeadlineExceeded:
        raise BadRequest("file", "takes too long to read; send a shorter one, or its text") from None
    finally:
        slots.release()
    if answer is None:
        raise BadRequest("file", "takes too much time or memory to read; send a smaller one, or its text")
    if "problem" in answer:
        raise _ERRORS.get(answer["code"], BadRequest)("file", answer["problem"])
    return Document(name, answer["kind"], len(data), answer["text"], answer["note"], answer["picture"])


async def _ask(head: bytes, data: bytes, within: float) -> dict[str, Any] | None:
    """Let a child read; None where it ended without an answer. It is gone when this returns or raises.

    Raises:
        DeadlineExceeded: It took too long.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        # Isolated, and by path: neither the folder it runs in nor a variable decides what it imports.
        "-I",
        str(_CHILD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within):
            feeding = asyncio.create_task(_feed(child, head, data))
            try:
                out = await _bounded(child)
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})
            return json.loads(out) if out and await child.wait() == 0 else None
    except TimeoutError:
        raise DeadlineExceeded(f"a file was not read within {within:g} s") from None
    except ValueError:
        return None
    finally:
        # Shielded: whoever is cancelled here leaves no zombie.
        await asyncio.shield(_end(child))


async def _end(child: asyncio.subprocess.Process) -> None:
    """Make sure that the child, and whatever it has started, is gone."""
    assert child.stdin is not None
    assert child.stdout is not None
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            # asyncio sees the end of a process only once all it has written is read.
            while await child.stdout.read(65536):
                pass
            await child.wait()


async def _feed(child: asyncio.subprocess.Process, head: bytes, data: bytes) -> None:
    assert child.stdin is not None
    with suppress(ConnectionError):
        child.stdin.write(head + data)
        await child.stdin.drain()
        child.stdin.close()


async def _bounded(child: asyncio.subprocess.Process) -> bytes:
    """Return the child's output; nothing where it is more than an answer can be."""
    assert child.stdout is not None
    out = bytearray()
    while part := await child.stdout.read(65536):
        out += part
        if len(out) > _OUT_BYTES:
            return b""
    return bytes(out)


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _slots() -> asyncio.Semaphore:
    """Return this loop's slots; a process of Serve has one loop, tests have many."""
    return _by_loop.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
