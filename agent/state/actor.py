"""State on one machine: `Memory` in a detached Ray actor, which outlives agent replicas and dispatchers.

Ray starts it again when its process dies. It is empty then; living calls bring their leases and records back.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from typing import Any

from agent.state.contract import BOUND_SECONDS, Lease, Part, Record, encode
from agent.state.memory import Memory
from serve.errors import ParleyError, Unavailable

NAME, NAMESPACE = "parley-state", "serve"
PAUSE_SECONDS = 0.1
"""Between two attempts while the actor is being started again."""


class ActorState:
    """Implements `State` over the actor, which the first to ask starts.

    Args:
        name: Of the actor.
    """

    def __init__(self, name: str = NAME) -> None:
        self._name = name
        self._actor: Any = None
        self._finding = asyncio.Lock()

    async def claim(self, call: str, owner: str, dispatcher: str, ttl: float, over: int | None = None) -> Lease | None:
        """Take a call."""
        return await self._ask("claim", call, owner, dispatcher, ttl, over, uuid.uuid4().hex)

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Hold on to a call."""
        return await self._ask("renew", lease, ttl)

    async def hand_over(self, lease: Lease, dispatcher: str) -> Lease | None:
        """Let another dispatcher hold the call's request."""
        return await self._ask("hand_over", lease, dispatcher)

    async def release(self, lease: Lease) -> bool:
        """Give a call up."""
        return await self._ask("release", lease)

    async def leases(self) -> list[Lease]:
        """Return the leases of all calls not released."""
        return await self._ask("leases")

    async def load(self, call: str, part: Part = "record") -> Record | None:
        """Return the record saved last, or the other part."""
        return await self._ask("load", call, part)

    async def save(self, lease: Lease, record: Record, ttl: float, part: Part = "record") -> bool:
        """Replace the record, or the other part."""
        encode(record)  # what is too long is refused here, not carried there first
        return await self._ask("save", lease, record, ttl, part)

    async def drop(self, call: str) -> None:
        """Forget record, files and audio."""
        await self._ask("drop", call)

    async def keep_audio(self, lease: Lease, utterance: str, sequence: int, pcm: bytes) -> bool:
        """Keep a piece of the utterance that is being spoken."""
        return await self._ask("keep_audio", lease, utterance, sequence, pcm)

    async def audio(self, call: str) -> tuple[str, bytes] | None:
        """Return the utterance kept last."""
        return await self._ask("audio", call)

    async def wait(self, room: str) -> None:
        """Put a room at the end of the queue, once."""
        await self._ask("wait", room)

    async def waiting(self) -> list[str]:
        """Return the rooms that wait."""
        return await self._ask("waiting")

    async def leave(self, room: str) -> None:
        """Take a room out of the queue."""
        await self._ask("leave", room)

    async def lead(self, name: str, owner: str, ttl: float) -> bool:
        """Say whether `owner` leads."""
        return await self._ask("lead", name, owner, ttl)

    async def publish(self, call: str, events: Sequence[Record]) -> None:
        """Add events for those who follow a call."""
        await self._ask("publish", call, events)

    async def live(self, call: str, after: str = "") -> list[tuple[str, Record]]:
        """Return the events after one."""
        return await self._ask("live", call, after)

    async def note(self, call: str, now: Record | None) -> None:
        """Say what a live call does now."""
        await self._ask("note", call, now)

    async def living(self) -> list[Record]:
        """Return what each live call does now."""
        return await self._ask("living")

    async def aclose(self) -> None:
        """Let go of the actor; it stays."""
        self._actor = None

    async def _ask(self, method: str, *args: Any) -> Any:
        """Call the actor; while it is away, again until the bound."""
        import ray.exceptions

        try:
            async with asyncio.timeout(BOUND_SECONDS):
                while True:
                    try:
                        actor = self._actor or await self._find()
                        return await getattr(actor, method).remote(*args)
                    except ray.exceptions.RayTaskError as error:
                        cause = error.cause
                        raise cause if isinstance(cause, ParleyError) else Unavailable("the state failed") from error
                    except (ray.exceptions.RayError, ValueError, ConnectionError):
                        self._actor = None
                        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
        except TimeoutError:
            raise Unavailable(f"the state actor did not answer within {BOUND_SECONDS:.0f} s") from None

    async def _find(self) -> Any:
        async with self._finding:
            if self._actor is None:
                self._actor = await asyncio.to_thread(_start, self._name)
        return self._actor


def _start(name: str) -> Any:
    """Return the actor, started if nobody has yet; asks Ray's head, so in a thread."""
    import ray

    remote: Any = ray.remote(Memory)
    return remote.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=1000,
    ).remote()
