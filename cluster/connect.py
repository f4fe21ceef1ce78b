"""This process as one that asks the models of the cluster that is up, over Serve's handles."""

from __future__ import annotations

import logging
import os
import sys

from cluster.state import State
from serve.settings import apply_ray_environment


def connect(run: State) -> None:
    """Connect to a run's Ray; what imports ray is imported after it, because ray reads what this sets."""
    apply_ray_environment()
    # Else Ray looks for the head at this machine's address on the network, and it listens on loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():
        return
    import ray.serve  # it sets its logger's level when it is imported

    # It tells of its handles' own connections, which says nothing to whoever reads a command's figures.
    logging.getLogger(ray.serve.__name__).setLevel(logging.WARNING)
    port = run.settings["ray"]["gcs_port"]
    ray.init(address=f"127.0.0.1:{port}", namespace="serve", log_to_driver=False, logging_level=logging.ERROR)


def disconnect() -> None:
    """Let go of it again, before the cluster goes away; harmless where nothing is connected."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()
