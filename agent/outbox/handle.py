"""The sink of the backend: records go to the API by its handle, and are in its database when that has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import ray.serve

from agent.config import API
from serve.client import translate
from serve.errors import Unavailable
from serve.records import AnyRecord

SECONDS = 10.0
"""For one delivery."""

_serve: Any = ray.serve


class HandleSink:
    """Delivers records to the API.

    Args:
        handle: Returns the handle of its deployment.
        seconds: For one delivery.
    """

    def __init__(self, handle: Callable[[], Any] | None = None, seconds: float = SECONDS) -> None:
        self._handle, self._seconds = handle or _api, seconds

    async def deliver(self, records: Sequence[AnyRecord]) -> None:
        """Store records.

        Raises:
            BadRequest: One of them will never fit.
            Unavailable: The API or its database is away.
        """
        bodies = [record.model_dump_json().encode() for record in records]
        response: Any = None
        try:
            async with asyncio.timeout(self._seconds):
                response = self._handle().options(method_name="records").remote(bodies)
                await response
        except TimeoutError:
            raise Unavailable(f"the API did not store records within {self._seconds:g} s") from None
        except Exception as error:
            known = translate(error, "api")
            # By its class alone: a database's error has the values.
            raise known or Unavailable(f"the API did not store records ({type(error).__name__})") from None
        finally:
            if response is not None:
                response.cancel()


@cache
def _api() -> Any:
    return _serve.get_deployment_handle(*API)
