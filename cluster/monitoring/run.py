"""A Prometheus, and a Grafana where one is installed, beside the cluster of `parley up --monitoring`: on loopback,
bounded, ended with it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.config import MonitoringConfig, RayConfig
from cluster.livekit import cache
from cluster.processes import Port
from serve.errors import EngineMissing
from serve.settings import home

HOST = "127.0.0.1"
DATASOURCE = "Prometheus"
"""The name by which dashboards know Prometheus, Ray's own too."""

SCRAPE_SECONDS = 10
"""Ray's processes report as often."""

KEPT = ("--storage.tsdb.retention.time=7d", "--storage.tsdb.retention.size=1GB")
GRAFANA_HOMES = ("/usr/share/grafana", "/opt/homebrew/opt/grafana/share/grafana")
GRAFANA_ADVICE = (
    "Grafana is not installed (Debian has no package): see https://grafana.com/docs/grafana/latest/setup-grafana/, "
    "then `parley up --monitoring` again"
)


def find(program: str) -> Path | None:
    """Return a program of Prometheus: on PATH, or where `cluster.setup` has put Debian's."""
    on_path = shutil.which(program)
    if on_path:
        return Path(on_path)
    brought = brought_to() / "usr" / "bin" / program
    return brought if os.access(brought, os.X_OK) else None


def brought_to() -> Path:
    """Return where `cluster.setup` puts Debian's Prometheus."""
    return cache() / "prometheus"


@dataclass(frozen=True, slots=True)
class Grafana:
    """A Grafana that is installed: its program, and the folder with its pages."""

    program: Path
    home: Path


def find_grafana() -> Grafana | None:
    """Return Grafana where it is installed."""
    program = next((found for name in ("grafana", "grafana-server") if (found := shutil.which(name))), None)
    pages = next((Path(each) for each in GRAFANA_HOMES if Path(each).is_dir()), None)
    return Grafana(Path(program), pages) if program and pages else None


def check() -> Path:
    """Return Prometheus's program.

    Raises:
        EngineMissing: There is none.
    """
    program = find("prometheus")
    if program is None:
        raise EngineMissing(
            "--monitoring needs Prometheus: `python -m cluster.setup --tests` brings Debian's without its service, "
            "or put `prometheus` on PATH"
        )
    return program


def ports(config: MonitoringConfig) -> list[Port]:
    """Return the ports that are taken."""
    if not config.enabled:
        return []
    found = [Port(config.prometheus_port, "Prometheus", "monitoring.prometheus_port")]
    grafana = Port(config.grafana_port, "Grafana", "monitoring.grafana_port")
    return [*found, grafana] if find_grafana() else found


def addresses(config: MonitoringConfig) -> dict[str, str | None]:
    """Return where they are, as `parley status` prints it."""
    if not config.enabled:
        return {}
    found: dict[str, str | None] = {"prometheus": f"http://{HOST}:{config.prometheus_port}"}
    return {**found, "grafana": f"http://{HOST}:{config.grafana_port}"} if find_grafana() else found


def environment(config: MonitoringConfig, folder: Path) -> dict[str, str]:
    """Return what Ray's head needs to know of them: its dashboard shows Grafana's panels beside its own."""
    if not config.enabled:
        return {}
    return {
        "RAY_PROMETHEUS_HOST": f"http://{HOST}:{config.prometheus_port}",
        "RAY_PROMETHEUS_NAME": DATASOURCE,
        # Without one Ray hides its tab of metrics, else it would say on every page that Grafana is missing.
        "RAY_GRAFANA_HOST": f"http://{HOST}:{config.grafana_port}" if find_grafana() else "DISABLED",
        "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR": str(folder / "grafana" / "dashboards" / "ray"),
    }


def prometheus(config: MonitoringConfig, ray: RayConfig, folder: Path) -> list[str]:
    """Write Prometheus's configuration into a run's folder; return its command."""
    from cluster.monitoring import alerts  # with all metrics behind it, which `up` alone does not need

    program = check()
    place = folder / "prometheus"
    place.mkdir(exist_ok=True)
    rules = alerts.write(place / "rules.yml")
    # Ray keeps this file up to date with the nodes that there are.
    nodes = folder / "ray" / "prom_metrics_service_discovery.json"
    settings = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "ray", "file_sd_configs": [{"files": [str(nodes)], "refresh_interval": "10s"}]},
            {"job_name": "haproxy", "static_configs": [{"targets": [f"{HOST}:{ray.haproxy_metrics_port}"]}]},
        ],
    }
    path = place / "prometheus.yml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    # What was seen outlives a run: a day is compared with the one before.
    data = home() / "prometheus"
    listen = f"--web.listen-address={HOST}:{config.prometheus_port}"
    return [str(program), f"--config.file={path}", f"--storage.tsdb.path={data}", *KEPT, listen]


def grafana(config: MonitoringConfig, folder: Path) -> list[str] | None:
    """Write Grafana's configuration and Parley's dashboards; return its command; None: it is not installed."""
    from cluster.monitoring import dashboards  # the same

    place = folder / "grafana"
    dashboards.write(place / "dashboards" / "parley")
    found = find_grafana()
    if found is None:
        return None
    provisioning = place / "provisioning"
    for kind, settings in _provisioning(config, place).items():
        (provisioning / kind).mkdir(parents=True, exist_ok=True)
        (provisioning / kind / "parley.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    ini = place / "grafana.ini"
    ini.write_text(
        f"[paths]\ndata = {place / 'data'}\nlogs = {place / 'logs'}\nprovisioning = {provisioning}\n"
        f"[server]\nhttp_addr = {HOST}\nhttp_port = {config.grafana_port}\n"
        # Whoever is on this machine may look; Ray's dashboard shows panels in frames.
        "[auth.anonymous]\nenabled = true\norg_role = Viewer\n"
        "[security]\nallow_embedding = true\ndisable_initial_admin_creation = true\n"
        "[analytics]\nreporting_enabled = false\ncheck_for_updates = false\ncheck_for_plugin_updates = false\n",
        encoding="utf-8",
    )
    command = [str(found.program), *(["server"] if found.program.name == "grafana" else [])]
    return [*command, f"--homepath={found.home}", f"--config={ini}"]


def _provisioning(config: MonitoringConfig, place: Path) -> dict[str, dict[str, object]]:
    source = {
        "name": DATASOURCE,
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "isDefault": True,
        "url": f"http://{HOST}:{config.prometheus_port}",
        "jsonData": {"timeInterval": f"{SCRAPE_SECONDS}s"},
    }
    folders = [
        {"name": name, "folder": title, "type": "file", "options": {"path": str(place / "dashboards" / name)}}
        for name, title in (("parley", "Parley"), ("ray", "Ray"))
    ]
    return {
        "datasources": {"apiVersion": 1, "datasources": [source]},
        "dashboards": {"apiVersion": 1, "providers": folders},
    }
