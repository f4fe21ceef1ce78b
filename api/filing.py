"""Files of calls and of assistants: their bytes in the store, a row for each in the database."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api.db import Database, session_of
from api.db.tables import Call, File
from api.db.tables.accounts import DEFAULT_TENANT
from api.storage import Storage, folder_of

logger = logging.getLogger("ray.serve")

_ID = re.compile(r"file_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that was read.

    Attributes:
        id: Of the file.
        name: Made plain: no folders, no control characters.
        kind: Media type, by its content.
        data: Its bytes.
        text: What was read from it; "": a picture, or somebody else tells.
        sender: Identity of the participant, or id of the person or key.
    """

    id: str
    name: str
    kind: str
    data: bytes
    text: str = ""
    sender: str = ""

    def row(self, location: str) -> File:
        """Return its row, which belongs to nothing yet."""
        return File(
            id=self.id,
            name=self.name[:255],
            media_type=self.kind[:127],
            size=len(self.data),
            digest=sha256(self.data).hexdigest(),
            location=location,
            text=self.text,
            sender=self.sender[:200],
        )


async def keep_of_call(session: AsyncSession, storage: Storage, tenant: str, call: str, file: Arrived) -> File | None:
    """Store a file of a call; None: the tenant has no such call.

    What the agent tells of the same file by its records may have arrived before, or will: the row is one.

    Raises:
        StorageAway: It is not stored.
    """
    if not _ID.fullmatch(file.id) or await session.get(Call, call) is None:
        return None
    path = f"{folder_of(tenant, 'calls', call)}/{file.id}"
    await storage.put(path, file.data, file.kind, file.name)
    row = file.row(path)
    row.call_id = call
    session.add(row)
    try:
        await session.commit()
        return row
    except IntegrityError:
        await session.rollback()
    known = await session.get(File, file.id)
    if known is None or known.call_id != call:
        # The call was deleted meanwhile.
        await storage.delete(path)
        return None
    known.location, known.digest, known.size = path, row.digest, row.size
    await session.commit()
    return known


async def keep(
    database: Database, storage: Storage, tenant: str, call: str, file: str, name: str, kind: str, data: bytes
) -> bool:
    """Store the bytes of a file that came into a call over LiveKit; False: the call is not known (yet).

    An agent asks for this beside the call, after it has told of the file by a record.
    """
    tenant = tenant or DEFAULT_TENANT
    async with session_of(database, tenant) as session:
        arrived = Arrived(file, name, kind, data)
        return await keep_of_call(session, storage, tenant, call, arrived) is not None
