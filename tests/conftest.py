"""What the tests share: markers by folder, no paid API within reach, and one real cluster for all that need one."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cryptography.fernet import Fernet

from cluster import processes
from cluster.bench.collector import Collector
from cluster.livekit import Keys
from serve.config import Routes
from serve.settings import apply_ray_environment
from tests.redis_server import RedisServer

apply_ray_environment()
# Drivers look for the head on loopback, where it listens.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
# No test asks a model hub but the fake one.
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]
ARTIFACTS = ROOT / "artifacts"

PORTS = [
    "api.port=18000",
    "livekit.port=17880",
    "livekit.udp_port=17882",
    "ray.gcs_port=16379",
    "ray.dashboard_port=18265",
    "ray.dashboard_metrics_port=14227",
    "ray.agent_port=15236",
    "ray.proxy_port=18500",
    "ray.haproxy_metrics_port=19101",
    "ray.haproxy_stats_port=18404",
    "ray.ingress_port=20000",
    "monitoring.prometheus_port=19090",
    "monitoring.grafana_port=13000",
]
"""A cluster of the tests runs beside one that a person has up."""

PAID = ("OPENAI", "AZURE", "DEEPGRAM", "ELEVEN", "ANTHROPIC", "GOOGLE", "AWS", "CARTESIA")
"""Providers whose keys no test may see: what is not there cannot be spent."""


def pytest_configure(config: pytest.Config) -> None:
    """Take paid providers' keys out of the environment before anything starts."""
    for name in list(os.environ):
        if name.startswith(PAID):
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that does not say what it is; run the quick ones first."""
    order = ("unit", "contract", "serve", "room", "chaos", "browser")
    for item in items:
        kinds = [mark.name for mark in item.iter_markers() if mark.name in order]
        if not kinds:
            raise pytest.UsageError(f"{item.nodeid}: set pytestmark to one of {', '.join(order)}")
    items.sort(key=lambda item: min(order.index(m.name) for m in item.iter_markers() if m.name in order))


@dataclass
class Parley:
    """A cluster that is up.

    Attributes:
        page: Address of the page.
        addresses: All addresses, as `parley status` prints them.
        logs: Folder of the logs.
        profile_calls: Calls that its agents take at once.
        ray: Address of Ray, for drivers.
        routes: Which model serves each role.
        run: Finds its processes.
        keys: LiveKit's, for tokens of a test's own.
        home: PARLEY_HOME, with what the agents were told to write.
        redis: At REDIS_URL; not started, and not used until a profile says so.
        secrets: What it was given by its environment, by variable; each is found wherever it should not be.
        collector: Of its traces.
    """

    page: str
    addresses: dict[str, str | None]
    logs: Path
    profile_calls: int
    ray: str
    routes: Routes
    run: str
    keys: Keys
    home: Path
    redis: RedisServer
    secrets: dict[str, str]
    collector: Collector
    _spoken: dict[str, Path] = field(default_factory=dict[str, Path])

    @property
    def key(self) -> dict[str, str]:
        """Return the header that OpenAI's API needs where keys are set."""
        return {"authorization": f"Bearer {self.secrets['PARLEY_API_KEYS']}"}

    async def until_calls(self, count: int, seconds: float = 20) -> None:
        """Wait until so many calls are in progress."""
        async with httpx.AsyncClient(timeout=10) as http, asyncio.timeout(seconds):
            while (await http.get(f"{self.page}/api/v1/status")).json().get("calls") != count:  # noqa: ASYNC110  # no event tells it
                await asyncio.sleep(0.1)

    def replica(self, application: str) -> psutil.Process:
        """Return the process of an application's only replica."""
        found = self.replicas(application)
        assert len(found) == 1, found
        return found[0]

    def replicas(self, application: str) -> list[psutil.Process]:
        """Return the processes of an application's replicas; those that only stand in front do not count."""
        titles = {each: " ".join(each.cmdline()) for each in processes.find(self.run)}
        name = f"ServeReplica:{application}:"
        return [each for each, title in titles.items() if name in title and f"{name}Front" not in title]

    def speech(self, text: str) -> Path:
        """Return a WAV (16 kHz mono) of a text spoken by the embedded voice."""
        if text not in self._spoken:
            import wave

            from cluster.call import speak
            from cluster.robot import RATE

            # In a thread: whoever asks may have a loop of their own running.
            with ThreadPoolExecutor(1) as pool:
                samples = pool.submit(lambda: asyncio.run(speak([text]))).result(60)[0].samples
            path = ARTIFACTS / "speech" / f"{len(self._spoken)}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(samples.tobytes())
            self._spoken[text] = path
        return self._spoken[text]


@pytest.fixture(scope="session")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Generator[Parley]:
    """Run the local profile, on ports of the tests' own, for as long as tests need it."""
    from cluster import doctor, profile, up
    from cluster.monitoring import run as monitoring

    home = tmp_path_factory.mktemp("home")
    os.environ["PARLEY_HOME"] = str(home)
    redis = RedisServer(tmp_path_factory.mktemp("redis"), durable=True)
    given = marked_secrets()
    collector = Collector().start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "300"
    # Redis takes any password for a user that needs none.
    os.environ["REDIS_URL"] = redis.url.replace("redis://", f"redis://default:{given['REDIS_URL']}@")
    # A package with hooks, as a deployer installs one.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT / "tests" / "installed"), os.environ.get("PYTHONPATH")))
    )
    name = "local" if doctor.has_flite() else "local-pip"
    watched = "true" if monitoring.find("prometheus") else "false"
    settings = profile.load(name, [*PORTS, "agent.backend=jsonl", f"monitoring.enabled={watched}"])
    told: list[str] = []
    cluster = up.Cluster(settings, name, lambda step: told.append(f"{step.name} {step.seconds} {step.detail}"))
    try:
        with pytest.MonkeyPatch.context() as environment:
            for variable, secret in given.items():
                if variable != "REDIS_URL":
                    environment.setenv(variable, secret)
            cluster.start()
        page = (cluster.addresses["page"] or "").rstrip("/")
        yield Parley(
            page,
            cluster.addresses,
            cluster.logs,
            settings.agent.calls_per_replica,
            f"127.0.0.1:{settings.ray.gcs_port}",
            settings.routes,
            cluster.run_id,
            cluster.keys,
            home,
            redis,
            given,
            collector,
        )
        problem = cluster.failure()
    finally:
        keep_logs(cluster.logs)
        cluster.stop()
        redis.kill()
        collector.stop()
    assert problem is None, problem
    left = processes.find(cluster.run_id)
    assert left == [], f"processes are left behind: {left}"


def marked_secrets() -> dict[str, str]:
    """Return a value of its own for every secret that the environment may hold; of REDIS_URL, its password."""
    names = ("PARLEY_API_KEYS", "PARLEY_SECRET", "OIDC_CLIENT_SECRET", "REDIS_URL")
    providers = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_SPEECH_KEY", "DEEPGRAM_API_KEY")
    made = {name: f"marked-{secrets.token_hex(16)}" for name in (*names, *providers)}
    return {**made, "PARLEY_CONTENT_KEYS": Fernet.generate_key().decode()}


def keep_logs(logs: Path) -> None:
    """Copy Serve's logs where they can be read when a test has failed."""
    kept = ARTIFACTS / "logs"
    shutil.rmtree(kept, ignore_errors=True)
    if logs.is_dir():
        shutil.copytree(logs / "serve", kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the last warnings of the cluster's logs beside a failure."""
    outcome = yield
    report = outcome.get_result()
    cluster = getattr(item, "funcargs", {}).get("parley")
    if report.failed and isinstance(cluster, Parley):
        lines: list[str] = []
        for log in sorted((cluster.logs / "serve").glob("*.log")):
            marked = [
                line for line in log.read_text(errors="replace").splitlines() if "WARN" in line or "ERROR" in line
            ]
            lines += [f"{log.name}: {line[:300]}" for line in marked[-5:]]
        report.sections.append(("the cluster's last warnings", "\n".join(lines[-40:])))
