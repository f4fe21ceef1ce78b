"""Files that callers send into the conversation: taken from the room or the API, read, told about."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypedDict

from livekit import rtc
from livekit.agents import RunContext, llm, utils

from agent import documents
from agent.documents import Document, plain
from agent.library import Library
from agent.tools import Guard, raw_tool
from serve.errors import BadRequest, ParleyError

logger = logging.getLogger("ray.serve.parley")

TOPIC = "parley.file"
"""Byte streams on it are files; text streams on it, from the agent, say what became of them."""

TOPICS = (TOPIC, "lk.chat")
"""livekit-client's `sendText` with attachments sends them as byte streams on the topic of the text."""

FILES = 20
"""Files of one call."""

STREAMS = 4
"""Files that are on their way at the same time."""

PIECE_SECONDS = 20.0
STREAM_SECONDS = 180.0
SEND_SECONDS = 10.0

Spoken = Literal["file_read", "file_refused"]


class Status(TypedDict):
    """What became of a file.

    Attributes:
        id: Of the stream that it came on; "": it came through the API.
        file: Of the file, wherever it is told of.
        name: As the agent calls it.
        status: In the end "read" or "refused".
        reason: Why it was refused, and what would be right; "".
        code: Of the refusal: "too_large", "unsupported", "unreadable", "too_many", "busy"; "".
        note: What was left out of a long one; "".
        kind: Media type, by its content; "" where it was refused.
        characters: Of its text.
    """

    id: str
    file: str
    name: str
    status: Literal["read", "refused"]
    reason: str
    code: str
    note: str
    kind: str
    characters: int


class Files:
    """The files of one call on this replica.

    Args:
        room: Where callers send them, and are told.
        library: Keeps what was read.
        sees: Says whether the model sees pictures.
        say: Tells the caller by voice: what, and the file's name.
        changed: Told when the library has changed.
        received: Told each file that was read, the identity of who sent it, and the file's id.
        keep: Told the id of each file that came over the room and was read, what it is, and its bytes.
    """

    def __init__(
        self,
        room: rtc.Room,
        library: Library,
        *,
        sees: Callable[[], Awaitable[bool]],
        say: Callable[[Spoken, str], Any] = lambda what, name: None,
        changed: Callable[[], None] = lambda: None,
        received: Callable[[Document, str, str], None] = lambda document, sender, file: None,
        keep: Callable[[str, Document, bytes], None] = lambda file, document, data: None,
    ) -> None:
        self._room, self._library = room, library
        self._sees, self._say = sees, say
        self._changed, self._received, self._keep = changed, received, keep
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reading = 0
        self._streams = 0

    def open(self) -> None:
        """Take files from now on."""
        for topic in TOPICS:
            self._room.register_byte_stream_handler(topic, self._on_stream)

    async def aclose(self) -> None:
        """Take no more, and drop those that are on their way."""
        for topic in TOPICS:
            self._room.unregister_byte_stream_handler(topic)
        await utils.aio.cancel_and_wait(*self._tasks)

    async def take(self, name: str, data: bytes, sender: str = "", stream: str = "") -> Status:
        """Read a file into the conversation, tell everybody what became of it, and return that."""
        name, file = plain(name), new_file_id()
        return await self._settle(name, stream, file, lambda: self._read(name, data, sender, file))

    async def _read(self, name: str, data: bytes, sender: str, file: str) -> Document:
        if len(self._library) + self._reading >= FILES:
            raise _TooMany("file", f"is one too many: a call may have {FILES}")
        self._reading += 1
        try:
            pictures = documents.is_picture(data) and await self._sees()
            document = await documents.read(name, data, pictures=pictures)
        finally:
            self._reading -= 1
        self._library.add(document)
        self._changed()
        self._received(document, sender, file)
        return document

    async def _settle(self, name: str, stream: str, file: str, work: Callable[[], Awaitable[Document]]) -> Status:
        """Do the work, and tell how it went."""
        status = Status(
            id=stream, file=file, name=name, status="read", reason="", code="", note="", kind="", characters=0
        )
        try:
            document = await work()
            status["note"], status["kind"], status["characters"] = document.note, document.kind, len(document.text)
        except BadRequest as error:
            status["status"], status["reason"], status["code"] = "refused", error.problem, _code(error)
        except ParleyError as error:
            status["status"], status["reason"], status["code"] = "refused", f"cannot be read now: {error}", "busy"
        # Neither name nor content: both are the caller's.
        logger.info("a file was %s %s", status["status"], status["code"])
        self._say("file_read" if status["status"] == "read" else "file_refused", name)
        self._spawn(self._tell(status))
        return status

    def _on_stream(self, reader: rtc.ByteStreamReader, sender: str) -> None:
        self._spawn(self._stream(reader, sender))

    async def _stream(self, reader: rtc.ByteStreamReader, sender: str) -> None:
        """Take one file from the room."""
        name, stream, file = plain(reader.info.name), reader.info.stream_id, new_file_id()

        async def work() -> Document:
            data = await self._receive(reader)
            document = await self._read(name, data, sender, file)
            self._keep(file, document, data)
            return document

        try:
            await self._settle(name, stream, file, work)
        finally:
            reader.close()

    async def _receive(self, reader: rtc.ByteStreamReader) -> bytes:
        """Return a stream's bytes; what is too large is left at once.

        Raises:
            BadRequest: It is too large, too slow, or broke off.
        """
        documents.check_size(reader.info.size or 0)
        if self._streams >= STREAMS:
            raise _TooMany("file", f"came with too many others: send {STREAMS} at a time")
        self._streams += 1
        data, whole = bytearray(), asyncio.timeout(STREAM_SECONDS)
        try:
            async with whole:
                pieces = aiter(reader)
                while True:
                    async with asyncio.timeout(PIECE_SECONDS):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return bytes(data)
                    data += piece
                    documents.check_size(len(data))
        except TimeoutError:
            late = "took too long to arrive" if whole.expired() else "broke off on its way"
            raise BadRequest("file", f"{late}; send it again") from None
        except rtc.StreamError:
            raise BadRequest("file", "broke off on its way; send it again") from None
        finally:
            self._streams -= 1

    async def _tell(self, status: Status) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._room.local_participant.send_text(json.dumps(status), topic=TOPIC)
        except (TimeoutError, rtc.StreamError) as error:
            logger.info("nobody was told of a file: %s", type(error).__name__)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("a file was lost: %s", type(error).__name__)


class _TooMany(BadRequest):
    """More files than are taken."""


def _code(error: BadRequest) -> str:
    return "too_many" if isinstance(error, _TooMany) else documents.code_of(error)


def new_file_id() -> str:
    """Return the id of a file, as the API makes them: they sort by time."""
    return f"file_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def read_file(library: Library, guard: Guard) -> llm.RawFunctionTool[Any, Any]:
    """Return the tool with which a model reads the files of its call.

    Args:
        library: Has them.
        guard: Bounds the tool.
    """

    async def run(raw_arguments: dict[str, object], context: RunContext[Any]) -> Any:
        async def work() -> Any:
            part = raw_arguments.get("part")
            name, question = (str(raw_arguments.get(each) or "") for each in ("name", "question"))
            return library.read(plain(name) if name else "", question, part if isinstance(part, int) else 1)

        return await guard.run("read_file", work, context)

    properties = {
        "name": {"type": "string", "description": "Of the file; without: the newest one"},
        "question": {"type": "string", "description": "What to look for, in the file's own words"},
        "part": {"type": "integer", "description": "To read on without a question: 1, 2, ..."},
    }
    description = "Read in a file that the caller has sent, where what you see of it is not enough."
    schema = {"description": description, "parameters": {"type": "object", "properties": properties}}
    return raw_tool("read_file", schema, run)
