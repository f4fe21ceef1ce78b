"""A circuit breaker: who only fails is left alone for a while, then tried again by one request."""

from __future__ import annotations

import time
from collections.abc import Callable


class Circuit:
    """Opens after some failures in a row, lets one request through after a pause, closes with its success.

    Args:
        failures: In a row that open it.
        pause: Seconds of the first pause; each further failure doubles it, up to `longest`.
        longest: Seconds.
        clock: Monotonic seconds; tests put their own in its place.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        pause: float = 5.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._pause, self._longest, self._clock = failures, pause, longest, clock
        self._failed = 0
        self._until = 0.0
        self._wait = pause

    @property
    def open(self) -> bool:
        """Whether requests should go elsewhere now."""
        return self._failed >= self._limit and self._clock() < self._until

    def allow(self) -> bool:
        """Return whether a request may pass; after a pause the first one that asks is the probe."""
        if self._failed < self._limit:
            return True
        if self.open:
            return False
        # Others keep away until the probe has come back, or as long as another pause.
        self._until = self._clock() + self._wait
        return True

    def succeeded(self) -> None:
        """A request went well."""
        self._failed, self._wait = 0, self._pause

    def failed(self) -> None:
        """A request failed, by the fault of who was asked."""
        self._failed += 1
        if self._failed >= self._limit:
            self._until = self._clock() + self._wait
            self._wait = min(self._wait * 2, self._longest)
