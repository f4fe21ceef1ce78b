"""One file over HTTP: goes on where an earlier attempt was cut off, and is checked before anybody sees it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.errors import AuthFailed, EngineMissing, ProviderDown

STALL_SECONDS = 30.0
"""Without a byte for this long, a connection is given up."""

ATTEMPTS = 5
"""In a row, none of which brought a byte."""

PAUSE_SECONDS = 0.5
"""Before the second attempt; each further one waits twice as long."""

_SPARE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class File:
    """One file, as its host describes it.

    Attributes:
        name: Its path in the repository.
        size: Bytes; 0 where the host does not say.
        digest: What it must hash to: sha256 (64 digits) or git's sha1 (40 digits); anything else cannot be checked.
    """

    name: str
    size: int
    digest: str


def receive(
    url: str,
    headers: Callable[[], dict[str, str]],
    file: File,
    target: Path,
    lock: Path,
    progress: Callable[[int], None],
) -> None:
    """Download a file to `target`, whole or not at all; one process does it, others wait for it.

    Args:
        url: Asked again at each attempt: it may lead to an address that is signed for minutes.
        headers: Made anew for each attempt.
        file: What is expected.
        target: Where it shall be; what came so far is kept beside it.
        lock: A file for the lock.
        progress: Told how many bytes are here.

    Raises:
        EngineMissing: It is not there, or the disk is full.
        AuthFailed: No access.
        ProviderDown: No byte for too long, or the sum is wrong: then what came is deleted.
        OSError: The disk cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.parley.incomplete")
    with _alone(lock, part, progress):
        if target.exists():
            return
        _room(part, file)
        _attempts(url, headers, file, part, progress)
        if not _right(part, file):
            part.unlink(missing_ok=True)
            raise ProviderDown(f"{file.name} is not what its host says it is (checksum): deleted, fetch it again")
        part.replace(target)


def _attempts(
    url: str, headers: Callable[[], dict[str, str]], file: File, part: Path, progress: Callable[[int], None]
) -> None:
    import httpx

    failed = 0
    timeout = httpx.Timeout(STALL_SECONDS, connect=min(10.0, STALL_SECONDS))
    with httpx.Client(timeout=timeout, follow_redirects=True) as http:
        while True:
            before = _size(part)
            try:
                if _stream(http, url, headers(), file, part, progress):
                    return
                reason = "the connection ended early"
            except httpx.HTTPStatusError as error:
                reason = f"status {error.response.status_code}"
            except httpx.HTTPError as error:
                reason = type(error).__name__
            failed = 1 if _size(part) > before else failed + 1
            if failed >= ATTEMPTS:
                raise ProviderDown(f"{file.name} does not come ({reason}); what came is kept, fetch it again")
            time.sleep(min(PAUSE_SECONDS * 2 ** (failed - 1), 10.0))


def _stream(
    http: Any, url: str, headers: dict[str, str], file: File, part: Path, progress: Callable[[int], None]
) -> bool:
    """Take what comes of one request; whether the file is whole."""
    have = _size(part)
    if file.size and have >= file.size:
        if have == file.size:
            return True
        part.unlink()
        have = 0
    # Compressed answers could neither be continued nor counted.
    headers = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code in {401, 403}:
            raise AuthFailed(f"no access to {file.name}: check HF_TOKEN, its rights and the model's licence")
        if response.status_code in {404, 410}:
            raise EngineMissing(f"{file.name} is not there")
        if response.status_code == 416:
            part.unlink(missing_ok=True)
            return False
        response.raise_for_status()
        continued = response.status_code == 206
        with part.open("ab" if continued else "wb") as out:
            have = have if continued else 0
            for chunk in response.iter_bytes():
                out.write(chunk)
                have += len(chunk)
                progress(have)
            out.flush()
            os.fsync(out.fileno())
    return have == file.size if file.size else True


def _right(part: Path, file: File) -> bool:
    """Whether a file hashes to what its host told; where that is a sum of no known kind, its size must do."""
    if len(file.digest) == 64:
        digests = [hashlib.sha256()]
    elif len(file.digest) == 40:
        # Git's way for small files; some mirrors take the content alone.
        digests = [hashlib.sha1(usedforsecurity=False), hashlib.sha1(usedforsecurity=False)]
        digests[0].update(f"blob {_size(part)}\0".encode())
    else:
        return not file.size or _size(part) == file.size
    with part.open("rb") as content:
        while chunk := content.read(2**20):
            for digest in digests:
                digest.update(chunk)
    return file.digest in {digest.hexdigest() for digest in digests}


def _room(part: Path, file: File) -> None:
    free, wanted = shutil.disk_usage(part.parent).free, file.size - _size(part)
    if wanted > 0 and free < wanted + _SPARE:
        raise EngineMissing(
            f"{file.name} needs {wanted / 2**20:.0f} MB more, and {part.parent} has {free / 2**20:.0f} MB left"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _alone(lock: Path, part: Path, progress: Callable[[int], None]) -> Generator[None]:
    """Hold the lock; while another process has it, wait as long as its file grows."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        seen, since = _size(part), time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            if _size(part) != seen:
                seen, since = _size(part), time.monotonic()
                progress(seen)
            # It may be waiting between attempts itself, or checking the sum of what came.
            if time.monotonic() - since > 3 * STALL_SECONDS:
                raise ProviderDown(f"another process downloads {part.name.split('.')[0][:12]}, and nothing comes")
            time.sleep(0.2)  # a lock on a file has no wait with a bound
        yield
    # The lock file stays: removing it would let two processes hold one each.
