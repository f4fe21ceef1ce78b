"""Workers of Ray by fork: one process has imported what all of them need, and each new worker is its child.

On two cores most of a start goes into importing ray and Serve once per worker. A forked worker skips that, and the
memory of what was imported is shared. Only `parley up` uses this; a cluster on Kubernetes starts workers Ray's way.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

# Imported without starting a thread or a connection: a fork takes neither along.
PRELOAD = (
    "ray",
    "ray._private.workers.default_worker",
    "ray.serve",
    "ray.serve._private.build_app",
    "ray.serve._private.controller",
    "ray.serve._private.haproxy",
    "ray.serve._private.proxy",
    "ray.serve._private.replica",
    "ray.serve._private.request_router",
    "serve.builder",
    "fastapi",
    "httpx",
)


READ_ONCE = ("RAY_JOB_ID", "RAY_RAYLET_PID")
"""Ray's core reads these from the environment when it is imported: a worker that needs other values is not ours."""


def main() -> None:
    """Listen on the socket named by the first argument and fork a worker for each order, until told to end."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = Path(sys.argv[1])
    # Orders that come during the imports wait in the backlog.
    staged = path.with_suffix(".new")
    listener.bind(str(staged))
    staged.chmod(0o600)
    listener.listen(64)
    staged.rename(path)
    _preload()
    if not _children_differ():
        # Two workers with the same ids would take each other's tasks: better the slow way.
        raise SystemExit("ray's random numbers were used before the fork: workers start Ray's own way")
    _stay_on_loopback()
    gc.collect()
    # What is frozen is not touched by the collector, so its pages stay shared.
    gc.freeze()
    # Children are reaped by the kernel; Ray watches over them by their sockets.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        with connection, suppress(OSError, ValueError):
            connection.settimeout(5)
            order, streams = _receive(connection)
            if any(order["environment"].get(name) != os.environ.get(name) for name in READ_ONCE):
                connection.sendall(b"-")
                continue
            pid = os.fork()
            if pid == 0:
                listener.close()
                connection.close()
                _become_worker(order, streams)
            for stream in streams:
                os.close(stream)
            connection.sendall(b"+")


def _preload() -> None:
    actor: Any = importlib.import_module("ray.actor")
    id_class = actor.ActorClassID

    class Ids:
        """Draws a class's id without waking the generator in Ray's core, whose state all children would share."""

        @staticmethod
        def from_random() -> Any:
            return id_class(os.urandom(id_class.size()))

    actor.ActorClassID = Ids
    for name in PRELOAD:
        # What cannot be imported is the worker's to report.
        with suppress(ImportError):
            importlib.import_module(name)
    actor.ActorClassID = id_class


def _children_differ() -> bool:
    """Whether two forked children draw different ids."""
    import ray

    drawn: set[bytes] = set()
    for _ in range(2):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, ray.ObjectID.from_random().binary())  # pyright: ignore
            os._exit(0)
        os.close(writer)
        drawn.add(os.read(reader, 64))
        os.close(reader)
        os.waitpid(pid, 0)
    return len(drawn) == 2


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * array("i").itemsize))
    streams = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            streams.frombytes(data)
    left, parts = int.from_bytes(size, "big"), list[bytes]()
    while left:
        part = connection.recv(min(left, 1 << 16))
        if not part:
            raise ValueError("the order ends early")
        parts.append(part)
        left -= len(part)
    return json.loads(b"".join(parts)), list(streams)


def _become_worker(order: dict[str, Any], streams: list[int]) -> None:
    """Run Ray's worker script in this child; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            # Else all workers would draw the same numbers.
            numpy.random.seed()
        script, *arguments = order["arguments"]
        sys.argv = [script, *arguments]
        sys.path[0] = str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _stay_on_loopback() -> None:
    """Have a replica's port for other replicas on loopback too.

    Ray 2.60 binds it to all interfaces whatever the node's address is, and what it takes is unpickled: on a machine
    with a network it would be an open door.
    """
    replica: Any = sys.modules["ray.serve._private.replica"]
    add_port = replica.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = add_loopback_port


if __name__ == "__main__":
    main()
