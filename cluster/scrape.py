"""What Ray's exporters say now, summed over processes: the figures that a Prometheus would keep."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serve.instruments import Metric

SECONDS = 5.0
"""How long a node may take."""

OTHERS = (
    *("ray_serve_deployment_queued_queries", "ray_node_cpu_utilization", "ray_node_cpu_count", "ray_node_mem_used"),
    *("ray_node_mem_total", "ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"),
)
"""Of Serve's and Ray's own metrics, those that are read."""

PREFIXES = ("ray_parley_", *OTHERS)

Labels = frozenset[tuple[str, str]]


class Scrape:
    """Samples by name and labels; those of different processes that are alike otherwise are added up.

    Args:
        texts: In Prometheus's format, one of each node.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._samples: defaultdict[str, defaultdict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        for text in texts:
            wanted = "\n".join(line for line in text.splitlines() if line.startswith(PREFIXES))
            for family in text_string_to_metric_families(wanted + "\n"):
                for sample in family.samples:
                    self._samples[sample.name][frozenset(sample.labels.items())] += sample.value

    def __bool__(self) -> bool:
        """Say whether anything was read."""
        return bool(self._samples)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels; 0.0 where there are none."""
        return sum(self.values(name, **labels))

    def values(self, name: str, **labels: str) -> list[float]:
        """Return all samples that have these labels."""
        wanted = labels.items()
        return [value for found, value in self._samples[name].items() if wanted <= set(found)]

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return sums by one label."""
        found: defaultdict[str, float] = defaultdict(float)
        for labels, value in self._samples[name].items():
            found[dict(labels).get(label, "")] += value
        return dict(found)

    def histogram(self, metric: Metric, **labels: str) -> dict[float, float]:
        """Return a histogram's cumulative counts by upper bound, seconds."""
        found: defaultdict[float, float] = defaultdict(float)
        for each, value in self._samples[f"{metric.exported}_bucket"].items():
            known = dict(each)
            if labels.items() <= known.items():
                found[float(known["le"])] += value
        return dict(found)


def read(folder: Path) -> Scrape:
    """Scrape all nodes of a run; one that does not answer is left out.

    Args:
        folder: The run's.
    """
    try:
        listed = json.loads((folder / "ray" / "prom_metrics_service_discovery.json").read_text())
        targets = [str(target) for each in listed for target in each["targets"]]
    except (OSError, ValueError, KeyError):
        return Scrape(())
    with httpx.Client(timeout=SECONDS, trust_env=False) as http, ThreadPoolExecutor(8) as pool:
        return Scrape(pool.map(lambda target: _text(http, target), targets))


def _text(http: httpx.Client, target: str) -> str:
    try:
        return http.get(f"http://{target}/metrics").raise_for_status().text
    except httpx.HTTPError:
        return ""


def less(new: Mapping[float, float], old: Mapping[float, float]) -> dict[float, float]:
    """Return what a histogram has got since; a process that has gone takes its counts along, which counts as none."""
    return {bound: max(0.0, count - old.get(bound, 0.0)) for bound, count in new.items()}


def quantile(of: float, counts: Mapping[float, float]) -> float | None:
    """Return a quantile of a histogram, between a bucket's bounds by proportion, as Prometheus does; None: it is empty.

    Args:
        of: 0.0 to 1.0.
        counts: Cumulative, by upper bound.
    """
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    rank = of * counts[bounds[-1]]
    for lower, upper in pairwise([0.0, *bounds]):
        before = counts.get(lower, 0.0)
        if counts[upper] >= rank and counts[upper] > before:
            share = (rank - before) / (counts[upper] - before)
            return lower if upper == float("inf") else lower + (upper - lower) * share
    return bounds[-1]
