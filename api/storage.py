"""Where the bytes of files are: a folder of this machine, Azure Blob Storage or S3, by `obstore`.

Credentials are the environment's, as obstore reads them: AZURE_STORAGE_ACCOUNT_NAME with a workload identity or a key,
AWS_REGION with a role or a key. What is stored there is encrypted by the store itself, not by PARLEY_CONTENT_KEYS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from urllib.parse import quote

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, LocalStore, MemoryStore, S3Store

from api.problems import Problem
from serve.errors import ConfigError
from serve.settings import home

logger = logging.getLogger("ray.serve")

SECONDS = 30.0
"""For one operation, with all that is tried again; a file has 10 MB at most."""

PIECE = 256 * 1024
"""Bytes that are read at a time."""

Store = AzureStore | LocalStore | MemoryStore | S3Store


class StorageAway(Problem):
    """The store does not answer, or refuses."""

    def __init__(self) -> None:
        super().__init__(503, "Busy", "The store of files does not answer; try again", headers={"retry-after": "2"})


class Storage:
    """A store of files, each at a path.

    Args:
        store: Of obstore.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, path: str, data: bytes, media_type: str, name: str) -> None:
        """Store a file, whole or not at all.

        Args:
            path: Where.
            data: The file.
            media_type: By its content.
            name: As it is offered to whoever downloads it.

        Raises:
            StorageAway: It is not stored.
        """
        # A folder keeps none; elsewhere they go with a link of the store's own.
        attributes = {"Content-Type": media_type, "Content-Disposition": attachment(name)}
        async with _bounded("put"):
            if isinstance(self._store, LocalStore):
                await obstore.put_async(self._store, path, data)
            else:
                await obstore.put_async(self._store, path, data, attributes=attributes)

    async def read(self, path: str) -> AsyncIterator[bytes] | None:
        """Return a file, in pieces; None: it is not there.

        Raises:
            StorageAway: It cannot be had.
        """
        async with _bounded("get"):
            try:
                found = await obstore.get_async(self._store, path)
            except FileNotFoundError:
                return None
        return _pieces(aiter(found.stream(PIECE)))

    async def delete(self, path: str) -> None:
        """Delete a file; one that is not there is none.

        Raises:
            StorageAway: It may still be there.
        """
        async with _bounded("delete"):
            try:
                await obstore.delete_async(self._store, path)
            except FileNotFoundError:
                logger.info("a file was gone before it was deleted")

    async def drop(self, folder: str) -> None:
        """Delete all files under a path.

        Raises:
            StorageAway: Some may still be there.
        """
        async with _bounded("delete"):
            async for some in obstore.list(self._store, folder.rstrip("/")):
                for each in some:
                    await self.delete(each["path"])

    async def link(self, path: str, seconds: int) -> str | None:
        """Return an address of the store's own from which a file can be had for so long; None: it signs none."""
        if not isinstance(self._store, AzureStore | S3Store):
            return None
        async with _bounded("sign"):
            return await obstore.sign_async(self._store, "GET", path, timedelta(seconds=seconds))


def open_storage(url: str | None) -> Storage:
    """Open the store that a profile names (`api.storage`).

    Raises:
        ConfigError: It cannot be used.
    """
    if url is None:
        folder = home() / "files"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Storage(LocalStore(folder))
    scheme, _, rest = url.partition("://")
    place, _, prefix = rest.partition("/")
    try:
        if scheme == "az":
            return Storage(AzureStore(place, prefix=prefix.strip("/") or None))
        return Storage(S3Store(place, prefix=prefix.strip("/") or None))
    except BaseError as error:
        # Its text has the settings that it was given.
        needed = "AZURE_STORAGE_ACCOUNT_NAME and credentials" if scheme == "az" else "AWS_REGION and credentials"
        raise ConfigError(f"api.storage: {scheme} needs {needed} in the environment ({type(error).__name__})") from None


def folder_of(tenant: str, kind: str, owner: str) -> str:
    """Return the folder of the files of a call or an assistant.

    Args:
        tenant: Whose.
        kind: "calls" or "assistants".
        owner: Id of the call or the assistant; those of calls may hold any character.
    """
    return f"{tenant}/{kind}/{sha256(owner.encode()).hexdigest()[:32]}"


def attachment(name: str) -> str:
    """Return a Content-Disposition that has browsers save a file under its name (RFC 6266)."""
    plain = "".join(each if each.isascii() and each.isprintable() and each not in '"\\%' else "_" for each in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def _pieces(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    while True:
        async with _bounded("read"):
            try:
                piece = await anext(stream)
            except StopAsyncIteration:
                return
        yield piece


@asynccontextmanager
async def _bounded(what: str) -> AsyncGenerator[None]:
    """Bound an operation, and say of whatever fails that the store is away."""
    try:
        async with asyncio.timeout(SECONDS):
            yield
    except (BaseError, OSError, ValueError, TimeoutError) as error:
        # The text of obstore's errors has paths and addresses.
        logger.warning("files: %s failed: %s", what, type(error).__name__)
        raise StorageAway from None
