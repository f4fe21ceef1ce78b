"""PromQL from metrics: what all dashboards and alerts have in common."""

from __future__ import annotations

from serve.instruments import Metric

WINDOW = "$__rate_interval"
"""Grafana's: four times the scrape interval, or the width of a pixel."""


def rate(metric: Metric, *by: str, window: str = WINDOW, only: str = "") -> str:
    """Return a counter's increase per second, summed over processes.

    Args:
        metric: A counter.
        by: Labels to keep.
        window: Over which.
        only: A selector, as `outcome="failed"`.
    """
    return f"sum{_by(*by)}(rate({_selected(metric.exported, only)}[{window}]))"


def increase(metric: Metric, *by: str, window: str, only: str = "") -> str:
    """Return how much was added within a window."""
    return f"sum{_by(*by)}(increase({_selected(metric.exported, only)}[{window}]))"


def total(metric: Metric, *by: str, only: str = "") -> str:
    """Return a gauge, summed over processes."""
    return f"sum{_by(*by)}({_selected(metric.exported, only)})"


def highest(metric: Metric, *by: str) -> str:
    """Return a gauge of which all processes say the same, or one says it and the others 0."""
    return f"max{_by(*by)}({metric.exported})"


def quantile(of: float, metric: Metric, *by: str, window: str = WINDOW, only: str = "") -> str:
    """Return a quantile of a histogram."""
    buckets = f"rate({_selected(f'{metric.exported}_bucket', only)}[{window}])"
    return f"histogram_quantile({of}, sum{_by('le', *by)}({buckets}))"


def _selected(name: str, only: str) -> str:
    return f"{name}{{{only}}}" if only else name


def _by(*labels: str) -> str:
    return f" by ({', '.join(labels)}) " if labels else " "
