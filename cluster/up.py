"""Start and stop a whole cluster on this machine: LiveKit, Ray, the applications.

`Cluster` is what the `parley` command and the tests use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster import livekit, processes, ray_head, state
from cluster.deploy import Application, Serve, follow
from cluster.monitoring import run as monitoring
from cluster.processes import Port
from cluster.profile import Profile
from cluster.state import Recorded, State
from serve.errors import ParleyError
from serve.settings import RAY_ENVIRONMENT

HOST = "127.0.0.1"
STEADY_SECONDS = 60.0
"""A livekit-server that ran for so long is started again at once when it ends."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """News of a start.

    Attributes:
        name: What is being done.
        seconds: How long it took, once it is done.
        detail: A few words more.
    """

    name: str
    seconds: float | None = None
    detail: str = ""


def _ignore(_: Step) -> None:
    pass


class Cluster:
    """A cluster on this machine, from start to stop.

    Args:
        profile: Checked by `cluster.profile.load`.
        name: The profile as the person named it.
        say: Told each step as it begins and ends.

    Attributes:
        addresses: Where things are, as `parley status` prints them; filled by `start`.
        keys: LiveKit's, for tests that sign tokens of their own.
        folder: Sockets and logs of this run.
    """

    def __init__(self, profile: Profile, name: str = "local", say: Callable[[Step], None] = _ignore) -> None:
        self.profile, self._say = profile, say
        self.run_id = str(uuid.uuid4())
        self.keys = livekit.Keys.make()
        self.addresses: dict[str, str | None] = {}
        self.folder = Path()
        self._name = name
        self._livekit: subprocess.Popen[bytes] | None = None
        self._head: subprocess.Popen[bytes] | None = None
        self._state: State | None = None
        self._stopping = threading.Event()
        self._cancel = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self, cancel: threading.Event | None = None) -> None:
        """Start everything and return when all applications run.

        Args:
            cancel: Set by a signal's handler: give up and end what was started.

        Raises:
            ParleyError: Something is missing, taken or broken; nothing is left running.
        """
        with state.lock():
            before = state.load()
            if before and before.alive:
                page = before.addresses.get("page") or "it is still starting"
                raise ParleyError(f"a cluster is up already ({page}): `parley status` shows it, `parley down` ends it")
            if before:
                self._say(Step("clean up after a crash", 0.0, f"{state.clean_up(before)} processes ended"))
            if self.profile.monitoring.enabled:
                monitoring.check()
            processes.check_ports(ports(self.profile))
            self.folder = state.new_folder(self.run_id)
            (self.folder / "logs").mkdir()
            self.addresses = self._addresses()
            self._state = State(
                run_id=self.run_id,
                folder=self.folder,
                profile=self._name,
                settings=self.profile.model_dump(mode="json"),
                supervisor=Recorded.of("supervisor", os.getpid()),
                addresses=self.addresses,
            )
            state.save(self._state)
        processes.adopt_orphans()
        self._cancel = cancel or threading.Event()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """End every process of this run and nothing else; harmless when called twice.

        Returns:
            How many processes it ended.
        """
        self._stopping.set()
        if self._watcher and self._watcher is not threading.current_thread():
            self._watcher.join(timeout=10)
        if self._state is None:
            return 0
        ended = state.clean_up(self._state)
        for process in (self._head, self._livekit):
            if process:
                process.wait(timeout=10)
        self._state = None
        return ended

    @property
    def logs(self) -> Path:
        """Return Ray's log folder."""
        return self.folder / "ray" / "session_latest" / "logs"

    def failure(self) -> str | None:
        """Say what of the cluster has ended that should not have, for whoever watches; None while all is well."""
        if self._head and self._head.poll() is not None and not self._stopping.is_set():
            return f"Ray's head ended (status {self._head.returncode}); its logs are in {self.folder}"
        return None

    def _start(self) -> None:
        with ThreadPoolExecutor(max_workers=3) as pool:
            # LiveKit and the schema are made while Ray starts: it is the longest by far.
            head = pool.submit(self._timed, "ray", self._start_ray)
            schema = pool.submit(self._compose)
            try:
                if not self._external:
                    self._timed("livekit", lambda: self._start_livekit(self._find_livekit()))
                composed = schema.result(timeout=ray_head.START_SECONDS)
                head.result(timeout=ray_head.START_SECONDS + 60)
            except BaseException as error:
                # Else leaving this block would wait for Ray.
                self._stopping.set()
                processes.end(self.run_id, self.folder, patience=1)
                if isinstance(error, TimeoutError):
                    raise ParleyError("Ray's head did not start in time: is this machine busy?") from None
                raise
        if self.profile.monitoring.enabled:
            self._timed("monitoring", self._start_monitoring)
        serve = Serve(self.addresses["dashboard"] or "")
        try:
            self._timed("serve", lambda: serve.put(composed))
            self._check_cancelled()
            names = [application["name"] for application in composed["applications"]]
            self._timed("applications", lambda: follow(serve, names, self.logs, self._progress, self._check_cancelled))
        finally:
            serve.close()
        self._timed("ingress", self._wait_for_page)
        assert self._state is not None
        self._record(ready=True)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        self._say(Step(name))
        start = time.monotonic()
        result = work()
        self._say(Step(name, time.monotonic() - start))
        return result

    def _check_cancelled(self) -> None:
        if self._cancel.is_set():
            raise ParleyError("stopped before it was up")

    def _progress(self, applications: dict[str, Application]) -> None:
        waiting = [app.name for app in applications.values() if app.status != "RUNNING"]
        self._say(Step("applications", detail=f"waiting for {', '.join(waiting)}" if waiting else ""))

    def _compose(self) -> dict[str, Any]:
        from cluster.schema import compose

        return compose(self.profile)

    @property
    def _external(self) -> bool:
        return bool(os.environ.get("LIVEKIT_URL"))

    def _find_livekit(self) -> Path:
        return livekit.find() or livekit.build(lambda detail: self._say(Step("livekit", detail=detail)))

    def _start_livekit(self, program: Path) -> None:
        given = livekit.environment(self.profile.livekit, self.keys, self.addresses["api"] or "")
        environment = {**os.environ, **given}
        self._livekit = self._spawn("livekit", [str(program)], environment)
        livekit.wait_until_up(self.profile.livekit, lambda: self._livekit is not None and self._livekit.poll() is None)

    def _start_ray(self) -> None:
        environment = {**os.environ, **RAY_ENVIRONMENT, **ray_head.environment(self.profile.ray, self.folder)}
        if not self._external:
            environment |= {
                "LIVEKIT_URL": self.addresses["livekit"] or "",
                "LIVEKIT_API_KEY": self.keys.key,
                "LIVEKIT_API_SECRET": self.keys.secret,
            }
        if self.profile.monitoring.enabled:
            environment |= monitoring.environment(self.profile.monitoring, self.folder)
        self._check_cancelled()
        self._head = self._spawn("ray", [sys.executable, "-m", ray_head.__name__], environment, talk=True)
        assert self._head.stdin
        assert self._head.stdout
        settings = {"folder": str(self.folder), "ray": self.profile.ray.model_dump(mode="json")}
        self._head.stdin.write(json.dumps(settings).encode())
        self._head.stdin.close()
        # A head that does not come up ends: the watchdog closes the pipe that is read here.
        watchdog = threading.Timer(ray_head.START_SECONDS + 20, self._head.kill)
        watchdog.start()
        line = self._head.stdout.readline()
        watchdog.cancel()
        if line.strip() != b"ready":
            tail = "\n".join((self.folder / "logs" / "ray.log").read_text(errors="replace").splitlines()[-8:])
            raise ParleyError(f"Ray's head did not start:\n{tail}")

    def _start_monitoring(self) -> None:
        settings = self.profile.monitoring
        # No secret is theirs to know.
        few = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        self._spawn("prometheus", monitoring.prometheus(settings, self.profile.ray, self.folder), few)
        command = monitoring.grafana(settings, self.folder)
        if command:
            self._spawn("grafana", command, few)
        else:
            self._say(Step("monitoring", detail=monitoring.GRAFANA_ADVICE))

    def _spawn(
        self, name: str, command: list[str], environment: dict[str, str], talk: bool = False
    ) -> subprocess.Popen[bytes]:
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                command,
                env={**environment, processes.MARK: self.run_id},
                cwd=self.folder,
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else log,
                stderr=log,
                # Ctrl-C goes to us alone, and we end the others in order.
                start_new_session=True,
            )
        self._record(Recorded.of(name, process.pid))
        return process

    def _record(self, process: Recorded | None = None, ready: bool = False) -> None:
        if self._state is None:
            return
        kept = [one for one in self._state.processes if not process or one.name != process.name]
        self._state.processes = [*kept, process] if process else kept
        self._state.ready = self._state.ready or ready
        state.save(self._state)

    def _wait_for_page(self) -> None:
        import httpx

        deadline = time.monotonic() + 60
        with httpx.Client(timeout=5, trust_env=False) as http:
            while time.monotonic() < deadline:
                self._check_cancelled()
                try:
                    if http.get(f"{self.addresses['api']}/health/ready").is_success:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)  # HAProxy tells no event of a backend that is there
        raise ParleyError(f"everything runs, but {self.addresses['api']}/health/ready does not say so; see {self.logs}")

    def _watch(self) -> None:
        """Start livekit-server again when it ends; waits longer each time, up to 30 s."""
        pause, begun = 0.5, time.monotonic()
        while not self._stopping.wait(0.5):
            if self._livekit is None or self._livekit.poll() is None:
                continue
            if time.monotonic() - begun > STEADY_SECONDS:
                pause = 0.5
            self._say(Step("livekit", detail=f"ended with status {self._livekit.returncode}: starting it again"))
            if self._stopping.wait(pause):
                return
            pause, begun = min(pause * 2, 30), time.monotonic()
            program = livekit.find()
            try:
                if program:
                    self._start_livekit(program)
            except (ParleyError, OSError) as error:
                self._say(Step("livekit", detail=str(error)))

    def _addresses(self) -> dict[str, str | None]:
        host = HOST if self.profile.api.host in {"0.0.0.0", "::", "localhost"} else self.profile.api.host  # noqa: S104
        page = f"http://{host}:{self.profile.api.port}"
        return {
            "page": f"{page}/",
            "console": f"{page}/console",
            "api": page,
            "docs": f"{page}/api/docs",
            "openai": f"{page}/v1",
            "dashboard": f"http://{HOST}:{self.profile.ray.dashboard_port}",
            "livekit": os.environ.get("LIVEKIT_URL") or f"ws://{HOST}:{self.profile.livekit.port}",
            **(monitoring.addresses(self.profile.monitoring) if self.profile.monitoring.enabled else {}),
        }


def ports(profile: Profile) -> list[Port]:
    """Return the ports that a profile takes on this machine."""
    ray = profile.ray
    found = [
        Port(profile.api.port, "the page and the API", "api.port"),
        Port(ray.gcs_port, "Ray", "ray.gcs_port"),
        Port(ray.dashboard_port, "the Ray dashboard", "ray.dashboard_port"),
        Port(ray.dashboard_metrics_port, "the Ray dashboard's metrics", "ray.dashboard_metrics_port"),
        Port(ray.agent_port, "Ray's dashboard agent", "ray.agent_port"),
        Port(ray.proxy_port, "Serve's proxy", "ray.proxy_port"),
        Port(ray.haproxy_metrics_port, "HAProxy's metrics", "ray.haproxy_metrics_port"),
        Port(ray.haproxy_stats_port, "HAProxy's statistics", "ray.haproxy_stats_port"),
    ]
    if profile.monitoring.enabled:
        found += monitoring.ports(profile.monitoring)
    return found if os.environ.get("LIVEKIT_URL") else [*found, *livekit.ports(profile.livekit)]
