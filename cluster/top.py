"""What goes on in the cluster now, as one object: what `parley top --json` prints."""

from __future__ import annotations

import datetime
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

import httpx

from agent import metrics as calls
from cluster import scrape
from cluster.deploy import Serve
from cluster.scrape import Scrape
from cluster.state import State
from serve import metrics as models
from serve import registry
from serve.errors import ParleyError
from serve.instruments import Metric
from serve.settings import settings

WINDOW_SECONDS = 300.0
"""Latencies are those of so long a time, once it has been looked at for so long."""

SECONDS = 5.0
LIST_MOST = 100

STAGES = ("endpointing", "stt", "llm_first_token", "tts_first_byte")

Facts = dict[str, Any]
T = TypeVar("T")


class Top:
    """Looks at a run again and again.

    Args:
        run: That is up.
    """

    def __init__(self, run: State) -> None:
        self._run = run
        key = settings().parley_api_keys.get_secret_value().split(",")[0].strip()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        address = run.addresses.get("api") or ""
        self._api = httpx.Client(base_url=address, headers=headers, timeout=SECONDS, trust_env=False)
        self._serve = Serve(run.addresses.get("dashboard") or "")
        self._seen: deque[tuple[float, Scrape]] = deque()

    def close(self) -> None:
        """Close connections."""
        self._api.close()
        self._serve.close()

    def look(self) -> Facts:
        """Return what goes on now: `calls`, `stages`, `models`, `applications`, `node`, `money`.

        What could not be had is null or empty, and `trouble` says so.
        """
        trouble: list[str] = []
        now = time.monotonic()
        seen = scrape.read(self._run.folder)
        if not seen:
            trouble.append("metrics: no node answers")
        before = self._before(now, seen)
        living = _try("calls", self._calls, trouble) or []
        served: dict[str, Any] = _try("Serve", self._serve.details, trouble) or {}
        return {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "calls": {
                # Exporters are late, and the API knows one tenant's.
                "live": max(round(seen.total(calls.CALLS_LIVE.exported)), len(living)),
                "slots": round(seen.total(calls.CALL_SLOTS.exported)),
                "waiting": round(max(seen.values(calls.CALLS_WAITING.exported), default=0)),
                "list": living,
            },
            "stages": stages(seen, before),
            "models": [_model(name, each, seen, before) for name, each in served.items() if _engine(each)],
            "applications": [_application(name, each) for name, each in served.items() if not _engine(each)],
            "node": node(seen),
            "money": _try("money", self._money, trouble),
            "trouble": trouble,
        }

    def _before(self, now: float, seen: Scrape) -> Scrape | None:
        """Keep this look; return the one that the window begins with, None: latencies are those since the start."""
        while len(self._seen) > 1 and now - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()
        self._seen.append((now, seen))
        at, oldest = self._seen[0]
        return oldest if now - at >= WINDOW_SECONDS / 2 else None

    def _calls(self) -> list[Facts]:
        """Return the live calls: as their agents tell of them, with what is stored."""
        stored = self._get("/api/v1/calls", {"status": "live", "limit": str(LIST_MOST)})["items"]
        known = {each["id"]: each for each in stored}
        now = time.time()
        return [
            {
                "id": each["id"],
                "caller": each["caller"],
                "medium": each["medium"],
                "assistant": each["assistant"],
                "caller_state": each["caller_state"],
                "assistant_state": each["assistant_state"],
                "turns": max(each["turns"], known.get(each["id"], {}).get("turns", 0)),
                "seconds": round(now - each["began"]),
                "voice_to_voice_ms": known.get(each["id"], {}).get("median_ms"),
                "cost": known.get(each["id"], {}).get("cost"),
                "currency": known.get(each["id"], {}).get("currency"),
            }
            for each in self._living()
        ]

    def _living(self) -> list[Facts]:
        """Return the first list that the API sends to whoever follows all calls."""
        with self._api.stream("GET", "/api/v1/calls/live") as response:
            if response.is_error:
                raise ParleyError(f"the API answers {response.status_code}")
            for line in response.iter_lines():
                if line.startswith("data:"):
                    return list(json.loads(line.removeprefix("data:"))["calls"])
        return []

    def _money(self) -> Facts:
        """Return what today's calls cost, UTC."""
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        found = self._get("/api/v1/usage/summary", {"first": today})
        return {"today": found["totals"], "unpriced_models": found["unpriced_models"]}

    def _get(self, path: str, params: dict[str, str]) -> Any:
        response = self._api.get(path, params=params)
        if response.is_error:
            raise ParleyError(f"the API answers {response.status_code}")
        return response.json()


def stages(seen: Scrape, before: Scrape | None) -> list[Facts]:
    """Return the latency of turns and of their stages, in ms."""
    rows: list[tuple[str, Metric, dict[str, str]]] = [("voice_to_voice", calls.VOICE_TO_VOICE, {})]
    rows += [(stage, calls.STAGE_SECONDS, {"stage": stage}) for stage in STAGES]
    return [{"stage": name, **_spread(seen, before, metric, labels)} for name, metric, labels in rows]


def node(seen: Scrape) -> Facts:
    """Return what the machines have to do: CPUs in percent, memory in bytes; all nodes together."""
    utilization = seen.by("ray_node_gpus_utilization", "GpuIndex")
    used, free = seen.by("ray_node_gram_used", "GpuIndex"), seen.by("ray_node_gram_available", "GpuIndex")
    shares = seen.values("ray_node_cpu_utilization")
    return {
        "cpu_percent": round(sum(shares) / len(shares), 1) if shares else None,
        "cpus": round(seen.total("ray_node_cpu_count")),
        "memory_used": round(seen.total("ray_node_mem_used")),
        "memory_total": round(seen.total("ray_node_mem_total")),
        "gpus": [
            # Ray tells a GPU's memory in MiB.
            {
                "index": index,
                "percent": round(percent),
                "memory_used": round(used.get(index, 0) * 2**20),
                "memory_total": round((used.get(index, 0) + free.get(index, 0)) * 2**20),
            }
            for index, percent in sorted(utilization.items())
        ],
    }


def _spread(seen: Scrape, before: Scrape | None, metric: Metric, labels: dict[str, str]) -> Facts:
    counts = seen.histogram(metric, **labels)
    if before is not None:
        counts = scrape.less(counts, before.histogram(metric, **labels))
    middle, late = scrape.quantile(0.5, counts), scrape.quantile(0.95, counts)
    return {
        "n": round(max(counts.values(), default=0.0)),
        "p50_ms": None if middle is None else round(middle * 1000),
        "p95_ms": None if late is None else round(late * 1000),
    }


def _engine(details: Facts) -> str:
    args = cast("Facts", (details.get("deployed_app_config") or {}).get("args") or {})
    return str(args.get("model", {}).get("engine", ""))


def _model(name: str, details: Facts, seen: Scrape, before: Scrape | None) -> Facts:
    engine = _engine(details)
    return {
        **_application(name, details),
        "role": registry.entry(engine).role,
        "engine": engine,
        "ongoing": round(seen.total(models.ONGOING.exported, model=name)),
        "slots": round(seen.total(models.SLOTS.exported, model=name)),
        "queued": round(seen.total("ray_serve_deployment_queued_queries", application=name)),
        "first_chunk": _spread(seen, before, models.FIRST_CHUNK_SECONDS, {"model": name}),
        "gpu_seconds": round(seen.total(models.GPU_SECONDS.exported, model=name), 1),
    }


def _application(name: str, details: Facts) -> Facts:
    deployments: dict[str, Facts] = details["deployments"]
    return {
        "name": name,
        "status": details["status"],
        "replicas": {
            deployment: {
                "running": sum(each["state"] == "RUNNING" for each in about.get("replicas") or ()),
                "wanted": about.get("target_num_replicas"),
            }
            for deployment, about in deployments.items()
            if deployment != "Front"
        },
    }


def _try(name: str, work: Callable[[], T], trouble: list[str]) -> T | None:
    """Return what work gives; what is away leaves a gap and a word about it."""
    try:
        return work()
    except (ParleyError, httpx.HTTPError, KeyError, ValueError) as error:
        trouble.append(f"{name}: {error if isinstance(error, ParleyError) else type(error).__name__}")
        return None
