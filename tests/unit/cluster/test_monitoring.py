"""Dashboards show what code exports, all of it and nothing else; operations.md has each metric; who runs them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from cluster import profile
from cluster.monitoring import alerts, dashboards, names, run
from serve.errors import EngineMissing
from serve.instruments import Metric, one_of
from tests.conftest import ROOT

pytestmark = pytest.mark.unit

SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
RAYS = re.compile(r"\bray_(?!parley_)\w+")
OURS = re.compile(r"\bray_parley_\w+")


def exported(metric: Metric) -> set[str]:
    return {metric.exported + suffix for suffix in SUFFIXES[metric.kind]}


def queries() -> Iterator[str]:
    for board in dashboards.BOARDS:
        for _, panels in board.rows:
            for panel in panels:
                yield from (query for query, _ in panel.queries)


def test_names_have_units_and_labels_are_few() -> None:
    metrics = names.metrics()
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert re.fullmatch(r"parley_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_seconds") == bool(metric.bounds) or metric.kind == "gauge", metric.name
        assert metric.bounds == tuple(sorted(set(metric.bounds)))
        assert not {"call", "tenant", "turn", "assistant", "caller"} & set(metric.labels), metric.name
    assert one_of(("a", "b"), "whatever a person writes") == "other"


def test_every_query_asks_for_what_is_exported() -> None:
    known = set[str]().union(*map(exported, names.metrics()))
    asked = [*queries(), *(alert.when for alert in alerts.ALERTS)]
    assert {name for query in asked for name in OURS.findall(query)} <= known


def test_every_metric_is_on_a_dashboard() -> None:
    asked = {name for query in queries() for name in OURS.findall(query)}
    missing = {metric.name for metric in names.metrics() if not exported(metric) & asked}
    assert missing == set()


def test_labels_that_queries_use_are_there() -> None:
    by_name = {name: metric for metric in names.metrics() for name in exported(metric)}
    for query in (*queries(), *(alert.when for alert in alerts.ALERTS)):
        for name, selector in re.findall(r"\b(ray_parley_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)(?:=|!)", selector)) <= set(by_name[name].labels), query
        for kept, name in re.findall(r"sum by \(([^)]*)\) \((?:rate|increase)\((\w+)", query):
            if name in by_name:
                assert set(kept.split(", ")) - {"le"} <= set(by_name[name].labels), query


def test_rays_own_metrics_are_known_to_ray() -> None:
    folder = Path(ray.__file__).parent
    sources = [*(folder / "serve" / "_private").glob("*.py"), *(folder / "dashboard" / "modules").rglob("*.py")]
    text = "".join(path.read_text(errors="replace") for path in sources)
    for name in {name for query in queries() for name in RAYS.findall(query)}:
        bare = name.removeprefix("ray_").removesuffix("_total")
        assert f'"{bare}' in text or f"ray_{bare}" in text, name


@pytest.mark.parametrize("board", dashboards.BOARDS, ids=lambda board: board.name)
def test_grafanas_types_take_the_dashboard(board: dashboards.Board) -> None:
    text = dashboards.encode(board)
    told: dict[str, Any] = json.loads(text)
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(told)))
    assert again == told
    panels = [panel for panel in told["panels"] if panel["type"] != "row"]
    assert len(panels) == sum(len(found) for _, found in board.rows)
    assert all(panel["datasource"]["uid"] == run.DATASOURCE and panel["targets"] for panel in panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in told["panels"]]
    assert len(set(places)) == len(places), "panels lie on each other"


@pytest.mark.parametrize("board", dashboards.BOARDS, ids=lambda board: board.name)
def test_grafanas_schema_takes_the_dashboard(board: dashboards.Board) -> None:
    schema = json.loads((Path(__file__).parent / "grafana_dashboard.schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    told = json.loads(dashboards.encode(board))
    validator.validate(told)
    told["panels"][1]["gridPos"]["x"] = "left"
    assert not validator.is_valid(told), "a schema that refuses nothing checks nothing"


def test_operations_page_has_every_metric() -> None:
    assert names.table() in (ROOT / "docs" / "operations.md").read_text(), "python -m cluster.monitoring.names"


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *wanted: str) -> None:
    folder = folder / "bin"
    folder.mkdir()
    for name in wanted:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("PARLEY_HOME", str(folder / "home"))


def test_without_prometheus_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch)
    with pytest.raises(EngineMissing, match=r"cluster\.setup --tests"):
        run.check()


def test_prometheus_is_bounded_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, "prometheus")
    settings = profile.load("local", ["monitoring.enabled=true", "monitoring.prometheus_port=9999"])
    command = run.prometheus(settings.monitoring, settings.ray, tmp_path)
    assert "--web.listen-address=127.0.0.1:9999" in command
    assert any(part.startswith("--storage.tsdb.retention.size=") for part in command)
    assert [port.number for port in run.ports(settings.monitoring)] == [9999]
    assert run.environment(settings.monitoring, tmp_path)["RAY_GRAFANA_HOST"] == "DISABLED"
    assert run.grafana(settings.monitoring, tmp_path) is None
    assert len(list((tmp_path / "grafana" / "dashboards" / "parley").glob("*.json"))) == len(dashboards.BOARDS)


def test_grafana_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, "prometheus", "grafana")
    monkeypatch.setattr(run, "GRAFANA_HOMES", (str(tmp_path),))
    settings = profile.load("local", ["monitoring.enabled=true"]).monitoring
    command = run.grafana(settings, tmp_path)
    assert command is not None
    assert command[:2] == [str(tmp_path / "bin" / "grafana"), "server"]
    assert "http_addr = 127.0.0.1" in (tmp_path / "grafana" / "grafana.ini").read_text()
    assert run.environment(settings, tmp_path)["RAY_GRAFANA_HOST"] == "http://127.0.0.1:3000"
    assert run.addresses(settings) == {"prometheus": "http://127.0.0.1:9090", "grafana": "http://127.0.0.1:3000"}


def test_monitoring_is_off_by_default() -> None:
    settings = profile.load("local").monitoring
    assert (run.ports(settings), run.addresses(settings)) == ([], {})
