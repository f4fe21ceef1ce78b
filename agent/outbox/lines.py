"""The simplest sink: a file of JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from serve.records import AnyRecord


class LinesSink:
    """Appends records to a file, each once, on the disk when `deliver` returns.

    The ids of all its records are kept in memory (about 100 bytes each): good for one machine and some million records.
    Readable by its user only: it has what people said.

    Args:
        path: Of the file; made with its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: set[str] = set()
        self._read = 0
        self._lock = threading.Lock()

    async def deliver(self, records: Sequence[AnyRecord]) -> None:
        """Append those that are not there."""
        lines = [(record.id, record.model_dump_json().encode() + b"\n") for record in records]
        await asyncio.to_thread(self._append, lines)

    def _append(self, lines: list[tuple[str, bytes]]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with self._lock, os.fdopen(handle, "r+b") as file:
            # Another courier may have been at work, and may be about to finish.
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(handle).st_size < self._read:
                self._ids, self._read = set(), 0
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # who wrote it died: whatever it was is delivered again
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line of somebody else
                    self._ids.add(json.loads(line)["id"])
                self._read += len(line)
            file.seek(self._read)
            file.truncate()
            fresh = {name: line for name, line in lines if name not in self._ids}
            file.write(b"".join(fresh.values()))
            file.flush()
            os.fsync(handle)
            self._ids |= fresh.keys()
            self._read += sum(len(line) for line in fresh.values())
