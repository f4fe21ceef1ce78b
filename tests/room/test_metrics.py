"""After a real turn, the real exporter has every metric, and Prometheus reads it by Ray's own list of nodes."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.call import Utterance, place, report
from cluster.monitoring import alerts, names
from serve.contracts import Role
from tests.conftest import Parley

pytestmark = [pytest.mark.apart, pytest.mark.room, pytest.mark.timeout(120)]

Seen = dict[str, dict[frozenset[tuple[str, str]], float]]

QUIET = {
    *("parley_calls_resumed_total", "parley_calls_busy_total", "parley_calls_broken_total", "parley_tools_total"),
    *("parley_livekit_reconnects_total", "parley_barge_ins_total", "parley_unheard_total", "parley_retries_total"),
    *("parley_typed_to_voice_seconds", "parley_fallbacks_total", "parley_request_failures_total"),
    *("parley_outbox_dropped_total", "parley_outbox_set_aside_total", "parley_webhook_attempts_total"),
    *("parley_model_gpu_seconds_total", "parley_cost_total"),
}
"""Of these, one good call has none: nothing goes wrong, nobody types, this profile has no prices and no GPU."""

USED: tuple[tuple[Role, str], ...] = (
    ("stt", "audio_seconds"),
    ("tts", "audio_seconds"),
    ("tts", "characters"),
    ("llm", "tokens"),
)
"""What each role uses, by the metric that has it."""

REPORT_SECONDS = 25.0
"""Each process reports every 10 s."""


async def scrape(parley: Parley) -> Seen:
    """Return all samples of all nodes, summed over processes, by name and our own labels."""
    listed = json.loads((parley.logs.parents[1] / "prom_metrics_service_discovery.json").read_text())
    ours = {label for metric in names.metrics() for label in metric.labels} | {"le"}
    seen: Seen = defaultdict(lambda: defaultdict(float))
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        for target in (target for each in listed for target in each["targets"]):
            text = (await http.get(f"http://{target}/metrics")).raise_for_status().text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name.startswith("ray_parley_"):
                        labels = frozenset((key, value) for key, value in sample.labels.items() if key in ours)
                        seen[sample.name][labels] += sample.value
    return seen


async def test_a_turn_is_in_every_metric(parley: Parley, say: Callable[[str], Utterance]) -> None:
    result = report(await place(parley.page, [say("Hello, can you hear me?")], turns=1))
    assert result["summary"]["failed"] == 0, result
    await parley.until_calls(0)
    wanted = {metric for metric in names.metrics() if metric.name not in QUIET}
    missing = {"everything"}
    seen: Seen = {}
    async with asyncio.timeout(REPORT_SECONDS):
        while missing or sum(seen["ray_parley_calls_live"].values()):
            seen = await scrape(parley)
            having = {name.removesuffix("_bucket") for name in seen}
            missing = {metric.name for metric in wanted if metric.exported not in having}
            await asyncio.sleep(1)  # processes report by a clock of their own

    def value(name: str, **labels: str) -> float:
        return sum(number for found, number in seen[f"ray_{name}"].items() if labels.items() <= set(found))

    assert value("parley_calls_begun_total") >= value("parley_calls_ended_total", reason="caller left") >= 1
    assert value("parley_call_slots") % parley.profile_calls == 0
    assert value("parley_dispatchers_registered") >= 1
    assert value("parley_turns_total", outcome="answered") >= 1
    told = value("parley_voice_to_voice_seconds_count")
    assert told >= 1
    assert 0 < value("parley_voice_to_voice_seconds_bucket", le="10.0") <= told
    stages = {dict(labels)["stage"] for labels in seen["ray_parley_turn_stage_seconds_count"]}
    assert stages == {"endpointing", "stt", "llm_first_token", "tts_first_byte"}
    for role, kind in USED:
        model = parley.routes.model(role)
        assert value(f"parley_model_{kind}_total", model=model) > 0, (role, kind)
        assert value("parley_model_busy_seconds_total", model=model) > 0, role
        assert value("parley_model_requests_total", model=model, outcome="ok") > 0, role
        assert value("parley_model_ongoing_requests", model=model) <= value("parley_model_slots", model=model)
    assert value("parley_outbox_delivered_total") >= 1


async def test_prometheus_reads_ray_and_knows_the_rules(parley: Parley) -> None:
    address = parley.addresses.get("prometheus")
    if address is None:
        pytest.skip("prometheus is not here: `python -m cluster.setup --tests` brings it")
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=10) as http, asyncio.timeout(30):
        query = {"query": "ray_parley_call_slots"}
        while not (await http.get("/api/v1/query", params=query)).json()["data"]["result"]:  # noqa: ASYNC110
            await asyncio.sleep(1)  # it looks every 10 s
        (group,) = (await http.get("/api/v1/rules")).json()["data"]["groups"]
        jobs = (await http.get("/api/v1/query", params={"query": "up"})).json()["data"]["result"]
        healthy = (await http.get(f"{parley.addresses['dashboard']}/api/prometheus_health")).json()
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == {each.name: "ok" for each in alerts.ALERTS}
    assert {each["metric"]["job"]: each["value"][1] for each in jobs} == {"ray": "1", "haproxy": "1"}
    assert healthy["result"], healthy
