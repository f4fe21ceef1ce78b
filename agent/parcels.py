"""A file from the API on its way to the replica that has the call.

    API -> any dispatcher: file(room, name, data) -> every agent replica: file(room, name, parcel)
    -> the one that has the call asks the dispatchers for the parcel, reads it, and its answer goes back the same way.

A replica that carries as many calls as it may takes no request, so this goes by Serve's broadcast, which does not
count; and the bytes go to one replica only, which comes for them.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any, cast

from serve.errors import Overloaded, Unavailable

logger = logging.getLogger("ray.serve")

PARCELS = 8
"""Files on their way through one dispatcher: each is held in memory."""

FILE_SECONDS = 75.0
"""From the API to the answer: waiting for others, reading, and two ways."""

FETCH_SECONDS = 10.0


class Parcels:
    """The files that wait in one dispatcher."""

    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}

    def fetch(self, parcel: str) -> bytes | None:
        """Return a file's bytes; None: it is not here."""
        return self._waiting.get(parcel)

    async def deliver(self, agents: Any, room: str, name: str, data: bytes) -> dict[str, Any] | None:
        """Send a file into a call.

        Args:
            agents: Handle of the `agent` deployment.
            room: The call.
            name: As the sender calls the file.
            data: The file.

        Returns:
            What became of it (`agent.files.Status`); None: nobody carries this call.

        Raises:
            Overloaded: Too many files are on their way.
            Unavailable: No answer, though the call may go on.
        """
        if len(self._waiting) >= PARCELS:
            raise Overloaded("too many files are on their way; send it again in a moment")
        parcel = uuid.uuid4().hex
        self._waiting[parcel] = data
        try:
            async with asyncio.timeout(FILE_SECONDS):
                answers = await _everybody(agents, "file", room, name, parcel)
        except TimeoutError:
            raise Unavailable(f"the file was not read within {FILE_SECONDS:g} s; send it again") from None
        finally:
            del self._waiting[parcel]
        found = next((cast("dict[str, Any]", each) for each in answers if isinstance(each, dict)), None)
        if found is None and any(isinstance(each, BaseException) for each in answers):
            raise Unavailable("not every agent answered; send the file again")
        return found


async def fetch(dispatchers: Any, parcel: str) -> bytes:
    """Return the bytes of a parcel from whichever dispatcher has it.

    Raises:
        Unavailable: None has.
    """
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            answers = await _everybody(dispatchers, "parcel", parcel)
    except TimeoutError:
        answers = list[Any]()
    for each in answers:
        if isinstance(each, bytes):
            return each
    raise Unavailable("the file got lost on its way; send it again")


async def _everybody(handle: Any, method: str, *args: Any) -> list[Any]:
    """Call a method on all replicas; an error stands in place of the answer of one that failed."""
    try:
        return await handle.broadcast(method, *args).results_async(return_exceptions=True)
    except Exception as error:  # whatever it is, nobody was reached
        logger.warning("nobody was reached with a file: %s", type(error).__name__)
        raise Unavailable(f"nobody was reached ({type(error).__name__})") from None
