"""Alert rules for Prometheus, made from the metrics' own definitions. Each leads to its part of docs/operations.md.

Run as `python -m cluster.monitoring.alerts FILE` to write them for a Prometheus of your own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from agent import metrics as calls
from api import metrics as backend
from cluster.monitoring.queries import highest, increase, quantile, rate, total
from serve import metrics as models

PAGE = "docs/operations.md"
FAULTLESS = 'outcome!~"ok|cancelled|BadRequest|StreamLost"'
"""Requests that failed by no fault of whoever asked; a lost stream is sent again whole."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: Of the rule, and of its section in docs/operations.md.
        when: PromQL that has a value while it is so.
        lasts: For how long, before somebody is told.
        severity: critical: callers notice it now; warning: they will.
        says: One sentence, with Prometheus's templates.
    """

    name: str
    when: str
    lasts: str
    severity: Literal["critical", "warning"]
    says: str

    @property
    def runbook(self) -> str:
        """Where it says what to do."""
        return f"{PAGE}#{self.name.lower()}"


_UNANSWERED = 'outcome=~"failed|unanswered"'
_LET_DOWN = 'outcome=~"lost|given up"'
_NO_FAULT = 'error!~"BadRequest|StreamLost"'
_DEAD = 'outcome="dead"'
_ANSWERS = 'method=~"chat|speak"'
_FIRST = quantile(0.95, models.FIRST_CHUNK_SECONDS, "model", "method", window="10m", only=_ANSWERS)
_TURNS = increase(calls.TURNS, window="10m")
_LOST = increase(calls.OUTBOX_DROPPED, window="15m")
_ASIDE = increase(calls.OUTBOX_SET_ASIDE, window="15m")
_REQUESTS = rate(models.REQUESTS, "model", window="5m")
_SPENT = rate(backend.COST, "currency", window="1h")

ALERTS = (
    Alert(
        "ParleyNoDispatcher",
        f"({total(calls.DISPATCHERS)} or vector(0)) < 1",
        "1m",
        "critical",
        "No dispatcher is registered with LiveKit: no call is answered.",
    ),
    Alert(
        "ParleyMetricsAway",
        'up{job="ray"} == 0',
        "2m",
        "warning",
        "{{ $labels.instance }} gives no metrics: the alerts below see nothing of it.",
    ),
    Alert(
        "ParleyCallersWait",
        f"{highest(calls.CALLS_WAITING)} > 0",
        "2m",
        "critical",
        "{{ $value }} callers wait for a free line.",
    ),
    Alert(
        "ParleyLinesFull",
        f"{total(calls.CALLS_LIVE)} / ({total(calls.CALL_SLOTS)} > 0) > 0.9",
        "5m",
        "warning",
        "{{ $value | humanizePercentage }} of the lines are taken.",
    ),
    Alert(
        "ParleyTurnsFail",
        f"{increase(calls.TURNS, window='10m', only=_UNANSWERED)} / ({_TURNS} >= 10) > 0.05",
        "2m",
        "critical",
        "{{ $value | humanizePercentage }} of the turns of 10 minutes have no answer.",
    ),
    Alert(
        "ParleySlow",
        f"{quantile(0.95, calls.VOICE_TO_VOICE, window='10m')} > 2.5 and on () {_TURNS} >= 10",
        "5m",
        "warning",
        "One in twenty callers waits {{ $value | humanizeDuration }} or longer for an answer.",
    ),
    Alert(
        "ParleyNotUnderstood",
        f"{increase(calls.UNHEARD, window='15m')} / ({increase(calls.TURNS, window='15m')} >= 10) > 0.2",
        "5m",
        "warning",
        "Somebody spoke and nothing was understood, {{ $value | humanizePercentage }} as often as there were turns.",
    ),
    Alert(
        "ParleyCallsBreak",
        f"{increase(calls.CALLS_BROKEN, window='10m', only=_LET_DOWN)} > 2",
        "0m",
        "critical",
        "{{ $value | humanize }} calls of 10 minutes lost their replica.",
    ),
    Alert(
        "ParleyLiveKitLost",
        f"{increase(calls.RECONNECTS, window='5m')} > 2",
        "0m",
        "warning",
        "{{ $value | humanize }} agents of 5 minutes lost LiveKit in a call.",
    ),
    Alert(
        "ParleyModelFails",
        f"{rate(models.REQUESTS, 'model', window='5m', only=FAULTLESS)} / ({_REQUESTS} > 0.02) > 0.05",
        "2m",
        "critical",
        "{{ $labels.model }} fails in {{ $value | humanizePercentage }} of its requests.",
    ),
    Alert(
        "ParleyStandsIn",
        f"{increase(models.FALLBACKS, 'model', 'instead', window='10m')} > 0",
        "5m",
        "warning",
        "{{ $labels.instead }} answers in place of {{ $labels.model }}.",
    ),
    Alert(
        "ParleyNobodyAnswers",
        f"{rate(models.FAILURES, 'role', window='5m', only=_NO_FAULT)} > 0.05",
        "2m",
        "critical",
        "Requests for {{ $labels.role }} are answered by no model.",
    ),
    Alert(
        "ParleyModelSlow",
        f"{_FIRST} > 2",
        "5m",
        "warning",
        "{{ $labels.model }} takes {{ $value | humanizeDuration }} to the first piece of an answer (p95).",
    ),
    Alert(
        "ParleyModelFull",
        f"{total(models.ONGOING, 'model')} / ({total(models.SLOTS, 'model')} > 0) > 0.95",
        "5m",
        "warning",
        "{{ $labels.model }} works on as many requests as it may: others queue.",
    ),
    Alert(
        "ParleyOutboxStuck",
        f"{highest(calls.OUTBOX_AGE)} > 60",
        "2m",
        "critical",
        "Records of calls have waited {{ $value | humanizeDuration }} for the backend.",
    ),
    Alert(
        "ParleyRecordsLost",
        f"({_LOST} > 0) or ({_ASIDE} > 0)",
        "0m",
        "critical",
        "{{ $value | humanize }} records of calls were dropped or set aside.",
    ),
    Alert(
        "ParleyWebhooksLate",
        f"{highest(backend.WEBHOOKS_AGE)} > 300",
        "5m",
        "warning",
        "A webhook message has been due for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "ParleyWebhooksDie",
        f"{increase(backend.WEBHOOK_ATTEMPTS, window='1h', only=_DEAD)} > 0",
        "0m",
        "warning",
        "{{ $value | humanize }} webhook messages were given up within an hour.",
    ),
    Alert(
        "ParleyCostJumps",
        f"{_SPENT} > 3 * {_SPENT.replace('[1h]', '[1h] offset 1d')}",
        "15m",
        "warning",
        "Calls cost more than three times what they did a day ago ({{ $labels.currency }}).",
    ),
)


def rules() -> dict[str, Any]:
    """Return Prometheus's rule file; also the `spec` of a PrometheusRule in Kubernetes."""
    return {"groups": [{"name": "parley", "rules": [_rule(alert) for alert in ALERTS]}]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.when,
        "for": alert.lasts,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.says, "runbook": alert.runbook},
    }


def write(path: Path) -> Path:
    """Write the rule file."""
    path.write_text(yaml.safe_dump(rules(), sort_keys=False, width=200), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
