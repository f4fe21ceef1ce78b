"""How Serve picks an agent replica: the less busy of two; for a call that goes on, the one that has it."""

from __future__ import annotations

import random
from typing import Any

from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve._private.request_router.request_router import RequestRouter


class CallRouter(RequestRouter):
    """Balances calls. A request whose session is the id of a replica goes to that one and to no other."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas to ask, best first; Serve asks again, after a pause, where none takes the request."""
        wanted: Any = ""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
            wanted = pending_request.metadata.session_id
        if wanted:
            return [[each for each in candidate_replicas if each.replica_id.unique_id == wanted]]
        return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
