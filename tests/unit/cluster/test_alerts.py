"""Alert rules: each fires when it should and is silent otherwise, by Prometheus's own test tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring import alerts, run
from tests.conftest import ROOT

pytestmark = pytest.mark.unit

PAGE = (ROOT / "docs" / "operations.md").read_text()
V2V = "ray_parley_voice_to_voice_seconds_bucket"
FIRST = "ray_parley_model_first_chunk_seconds_bucket"
TURNS = 'ray_parley_turns_total{outcome="%s"}'
DAY = "0+1x1440"

CASES: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str]]] = {
    "ParleyNoDispatcher": (
        {"ray_parley_dispatchers_registered": "0x60"},
        {"ray_parley_dispatchers_registered": "1x60"},
        {},
    ),
    "ParleyMetricsAway": (
        {'up{job="ray", instance="n"}': "0x60"},
        {'up{job="ray", instance="n"}': "1x60"},
        {"job": "ray", "instance": "n"},
    ),
    "ParleyCallersWait": ({"ray_parley_calls_waiting": "1x60"}, {"ray_parley_calls_waiting": "0x60"}, {}),
    "ParleyLinesFull": (
        {"ray_parley_calls_live": "8x60", "ray_parley_call_slots": "8x60"},
        {"ray_parley_calls_live": "7x60", "ray_parley_call_slots": "8x60"},
        {},
    ),
    "ParleyTurnsFail": (
        {TURNS % "answered": "0+9x60", TURNS % "failed": "0+1x60"},
        {TURNS % "answered": "0+99x60", TURNS % "unanswered": "0+1x60"},
        {},
    ),
    "ParleySlow": (
        {
            f'{V2V}{{le="2"}}': "0+1x60",
            f'{V2V}{{le="3"}}': "0+2x60",
            f'{V2V}{{le="+Inf"}}': "0+2x60",
            TURNS % "answered": "0+2x60",
        },
        {
            f'{V2V}{{le="2"}}': "0+2x60",
            f'{V2V}{{le="3"}}': "0+2x60",
            f'{V2V}{{le="+Inf"}}': "0+2x60",
            TURNS % "answered": "0+2x60",
        },
        {},
    ),
    "ParleyNotUnderstood": (
        {"ray_parley_unheard_total": "0+1x60", TURNS % "answered": "0+2x60"},
        {"ray_parley_unheard_total": "0+1x60", TURNS % "answered": "0+20x60"},
        {},
    ),
    "ParleyCallsBreak": (
        {'ray_parley_calls_broken_total{outcome="lost"}': "0+1x60"},
        {'ray_parley_calls_broken_total{outcome="moved"}': "0+1x60"},
        {},
    ),
    "ParleyLiveKitLost": (
        {"ray_parley_livekit_reconnects_total": "0+1x60"},
        {"ray_parley_livekit_reconnects_total": "5x60"},
        {},
    ),
    "ParleyModelFails": (
        {
            'ray_parley_model_requests_total{model="m", outcome="ok"}': "0+90x60",
            'ray_parley_model_requests_total{model="m", outcome="EngineFailed"}': "0+10x60",
        },
        {
            'ray_parley_model_requests_total{model="m", outcome="ok"}': "0+90x60",
            'ray_parley_model_requests_total{model="m", outcome="BadRequest"}': "0+10x60",
        },
        {"model": "m"},
    ),
    "ParleyStandsIn": (
        {'ray_parley_fallbacks_total{model="a", instead="b", error="EngineFailed"}': "0+1x60"},
        {'ray_parley_fallbacks_total{model="a", instead="b", error="EngineFailed"}': "4x60"},
        {"model": "a", "instead": "b"},
    ),
    "ParleyNobodyAnswers": (
        {'ray_parley_request_failures_total{role="llm", model="m", error="Unavailable"}': "0+6x60"},
        {'ray_parley_request_failures_total{role="llm", model="m", error="BadRequest"}': "0+6x60"},
        {"role": "llm"},
    ),
    "ParleyModelSlow": (
        {
            f'{FIRST}{{model="m", method="chat", le="{le}"}}': rise
            for le, rise in (("2", "0+1x60"), ("3", "0+2x60"), ("+Inf", "0+2x60"))
        },
        {
            f'{FIRST}{{model="m", method="prefill", le="{le}"}}': rise
            for le, rise in (("2", "0+1x60"), ("3", "0+2x60"), ("+Inf", "0+2x60"))
        },
        {"model": "m", "method": "chat"},
    ),
    "ParleyModelFull": (
        {'ray_parley_model_ongoing_requests{model="m"}': "8x60", 'ray_parley_model_slots{model="m"}': "8x60"},
        {'ray_parley_model_ongoing_requests{model="m"}': "7x60", 'ray_parley_model_slots{model="m"}': "8x60"},
        {"model": "m"},
    ),
    "ParleyOutboxStuck": (
        {"ray_parley_outbox_oldest_seconds": "61x60"},
        {"ray_parley_outbox_oldest_seconds": "59x60"},
        {},
    ),
    "ParleyRecordsLost": (
        {"ray_parley_outbox_dropped_total": "0+1x60"},
        {"ray_parley_outbox_dropped_total": "9x60", "ray_parley_outbox_set_aside_total": "9x60"},
        {},
    ),
    "ParleyWebhooksLate": (
        {"ray_parley_webhooks_overdue_seconds": "301x60"},
        {"ray_parley_webhooks_overdue_seconds": "299x60"},
        {},
    ),
    "ParleyWebhooksDie": (
        {'ray_parley_webhook_attempts_total{outcome="dead"}': "0+1x60"},
        {'ray_parley_webhook_attempts_total{outcome="failed"}': "0+1x60"},
        {},
    ),
    "ParleyCostJumps": (
        {'ray_parley_cost_total{currency="USD"}': "0+1x1440 1444+4x150"},
        {'ray_parley_cost_total{currency="USD"}': "0+1x1440 1442+2x150"},
        {"currency": "USD"},
    ),
}
"""By alert: series that make it fire, series that do not, and the labels that it then has."""


def test_every_alert_has_a_case_and_a_runbook() -> None:
    assert CASES.keys() == {alert.name for alert in alerts.ALERTS}
    sections = set(re.findall(r"^#+ (Parley\w+)$", PAGE, re.MULTILINE))
    assert sections == CASES.keys()
    for alert in alerts.ALERTS:
        page, _, anchor = alert.runbook.partition("#")
        assert (ROOT / page).is_file()
        assert anchor in {section.lower() for section in sections}


def test_rules_fire_when_they_should(tmp_path: Path) -> None:
    promtool = run.find("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: `python -m cluster.setup --tests` brings it")
    alerts.write(tmp_path / "rules.yml")
    rules = {rule["alert"]: rule for rule in alerts.rules()["groups"][0]["rules"]}
    tests: list[dict[str, Any]] = []
    for name, (firing, quiet, labels) in CASES.items():
        at = "1580m" if name == "ParleyCostJumps" else "55m"
        told = {"exp_labels": {"severity": rules[name]["labels"]["severity"], **labels}}
        for series, expected in ((firing, [told]), (quiet, [])):
            tests.append(
                {
                    "name": f"{name} {'fires' if expected else 'is silent'}",
                    "interval": "1m",
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                            "eval_time": at,
                            "exp_samples": [{"value": len(expected)}],
                        },
                        *(
                            {
                                "expr": "ALERTS{" + f'alertname="{name}", alertstate="firing"' + "}",
                                "eval_time": at,
                                "exp_samples": [{"labels": _labels(name, each["exp_labels"]), "value": 1}],
                            }
                            for each in expected
                        ),
                    ],
                }
            )
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def _labels(name: str, labels: dict[str, str]) -> str:
    found = {"alertname": name, "alertstate": "firing", **labels}
    return "ALERTS{" + ", ".join(f'{key}="{value}"' for key, value in found.items()) + "}"
