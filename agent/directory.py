"""The API's directory of assistants, as an agent replica asks it; and the way of a call's files into its store.

A version of an assistant never changes, so what was had once stands in when the API is away. Nothing here is needed for
a call to begin or to go on: without an answer the default assistant takes it, and a file is in the conversation anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent.documents import Document
from agent.library import Read
from serve.assistant import Assistant

logger = logging.getLogger("ray.serve.parley")

FIND_SECONDS = 2.0
"""A caller waits for no more, with all that is tried again."""

KNOWN_SECONDS = 0.5
"""Where the assistant is known already, and only what its files say may be newer."""

PAUSE_SECONDS = 0.2
KNOWN = 256
"""Assistants that a replica remembers."""

KEEP_SECONDS = 30.0
KEEP_PAUSES = (1.0, 3.0, 9.0)
"""Before a file is offered again: the call it belongs to may not be known yet."""

KEEPING = 8
"""Files of one replica that wait in memory."""

Ask = Callable[..., Awaitable[Any]]
"""Calls a method of the API, by name."""


@dataclass(frozen=True, slots=True)
class Other:
    """Whom an assistant may hand over to."""

    ref: str
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An assistant of a tenant.

    Attributes:
        ref: Id and version.
        name: As people and models know it.
        tenant: Whose; "": the default one's.
        assistant: What it is.
        shelf: What it knows, cut and ready.
        others: Whom it may hand over to.
    """

    ref: str
    name: str
    tenant: str
    assistant: Assistant
    shelf: tuple[Read, ...] = ()
    others: tuple[Other, ...] = ()

    @classmethod
    def of(cls, answer: dict[str, Any], tenant: str) -> Entry:
        """Return the entry that the API's answer describes (`api.directory.assistant`), or that `json` has made."""
        files = [Document(**each, knowledge=True) for each in reversed(answer.get("files", ()))]
        return cls(
            answer["ref"],
            answer["name"],
            tenant,
            Assistant.model_validate(answer["definition"]),
            tuple(map(Read.of, files)),
            tuple(Other(**each) for each in answer.get("others", ())),
        )

    def json(self) -> dict[str, Any]:
        """Return what the call's record needs: who it is, without what it knows."""
        definition = self.assistant.model_dump(mode="json", exclude_defaults=True)
        return {"ref": self.ref, "name": self.name, "tenant": self.tenant, "definition": definition}


class Directory:
    """Asks the API, and remembers.

    Args:
        ask: Calls a method of the API.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._keeping: set[asyncio.Task[None]] = set()

    async def find(self, asked: str, tenant: str, known: Entry | None = None) -> Entry | None:
        """Return an assistant of a tenant's; None: there is none, or nobody says.

        Args:
            asked: An id with a version, an id, or a name.
            tenant: As the dispatch says.
            known: What is known of it from before.
        """
        known = self._known.get((asked, tenant), known)
        try:
            async with asyncio.timeout(KNOWN_SECONDS if known else FIND_SECONDS):
                answer = await self._answer(asked, tenant)
            # Apart from the event loop: cutting a long text takes tens of milliseconds.
            entry = await asyncio.to_thread(Entry.of, answer, tenant) if answer is not None else None
        except Exception as error:  # whatever it is, the call begins
            logger.warning("the directory of assistants did not answer (%s)", type(error).__name__)
            return known
        if entry is not None:
            for key in ((asked, tenant), (entry.ref, tenant)):
                self._known[key] = entry
                self._known.move_to_end(key)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return entry

    def keep(self, call: str, tenant: str, file: str, document: Document, data: bytes) -> None:
        """Store a file's bytes, beside the call; one that cannot be stored is left."""
        if len(self._keeping) >= KEEPING:
            logger.warning("call %s: a file is not kept: too many wait", call)
            return
        task = asyncio.create_task(self._keep(tenant, call, file, document, data), name="keep a file")
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _answer(self, asked: str, tenant: str) -> dict[str, Any] | None:
        """Ask until somebody answers; whoever waits bounds it."""
        while True:
            try:
                return await self._ask("assistant", asked, tenant)
            except Exception as error:  # an API that is being replaced fails in many ways
                logger.info("the directory of assistants is asked again (%s)", type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)  # nothing tells that it is back

    async def _keep(self, tenant: str, call: str, file: str, document: Document, data: bytes) -> None:
        why = "the call is not known"
        for pause in (*KEEP_PAUSES, None):
            try:
                async with asyncio.timeout(KEEP_SECONDS):
                    if await self._ask("keep", tenant, call, file, document.name, document.kind, data):
                        return
            except Exception as error:  # whatever it is, the call goes on without
                why = type(error).__name__
            if pause is not None:
                await asyncio.sleep(pause)
        logger.warning("call %s: a file is not kept: %s", call, why)
