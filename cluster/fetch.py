"""Brings what a profile needs from the hub onto this machine, with a bar that shows how far it is."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cluster.console import Story
from cluster.up import Step
from serve import hub
from serve.errors import ParleyError

Told = Callable[[str, int], None]
"""A reference, and how many bytes of it are here."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is not here yet.

    Attributes:
        sizes: Bytes by reference.
    """

    sizes: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(self.sizes.values())


def wanted(references: Sequence[str]) -> Wanted:
    """Ask the hub for the sizes of what is not in the cache; asks nobody where all is.

    Raises:
        ParleyError: The hub is away, or has no such thing.
    """
    missing = [reference for reference in references if hub.cached(reference) is None]
    if not missing:
        return Wanted({})
    with ThreadPoolExecutor(min(8, len(missing))) as pool:
        return Wanted(dict(zip(missing, pool.map(hub.size, missing), strict=True)))


def megabytes(size: int) -> str:
    """Write a size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def fetch(wanted: Wanted, story: Story, end: threading.Event | None = None) -> None:
    """Download; what came is kept when it is stopped, and the next time goes on there.

    Args:
        wanted: From `wanted`.
        story: Told in a pipe; on a terminal a bar stands in its place.
        end: Set by a signal's handler: stop at once.

    Raises:
        ParleyError: Something does not come, or it was stopped.
    """
    if not wanted.sizes:
        return
    start = time.monotonic()
    with _shown(wanted, story) as told:
        for reference in wanted.sizes:
            _aside(reference, told, end or threading.Event())
    story(Step("fetch", time.monotonic() - start, megabytes(wanted.size)))


def _aside(reference: str, told: Told, end: threading.Event) -> None:
    """Fetch in a thread of its own: whoever waits for a byte cannot be stopped."""
    failed: list[BaseException] = []

    def tell(have: int) -> None:
        if end.is_set():
            raise ParleyError("stopped")
        told(reference, have)

    def work() -> None:
        try:
            hub.fetch(reference, tell)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True, name="fetch")
    thread.start()
    try:
        while thread.is_alive() and not end.is_set():
            thread.join(0.1)
    except KeyboardInterrupt:
        end.set()
        raise
    if end.is_set():
        raise ParleyError("stopped; what came is kept, and the next time goes on there")
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _shown(wanted: Wanted, story: Story) -> Generator[Told]:
    console = Console(stderr=True, highlight=False)
    if story.quiet or not console.is_terminal:
        here = dict.fromkeys(wanted.sizes, 0)

        def tell(reference: str, have: int) -> None:
            here[reference] = have
            story(Step("fetch", detail=f"{megabytes(sum(here.values()))} of {megabytes(wanted.size)}"))

        yield tell
        return
    story.close()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        tasks = {
            reference: progress.add_task(reference.removeprefix(hub.SCHEME), total=size)
            for reference, size in wanted.sizes.items()
        }
        yield lambda reference, have: progress.update(tasks[reference], completed=have)
