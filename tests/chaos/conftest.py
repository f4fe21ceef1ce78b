"""What tests of outages share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.conftest import Parley


@pytest.fixture(scope="module", autouse=True)
def driver(parley: Parley) -> Generator[None]:
    """Connect this process to the cluster: who carries a call is asked of its state."""
    import ray

    ray.init(address=parley.ray, namespace="serve", log_to_driver=False, logging_level=40)
    yield
    ray.shutdown()
