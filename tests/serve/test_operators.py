"""What operators see of a real cluster, over its ingress."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import Parley

pytestmark = pytest.mark.serve


async def test_models_are_shown_as_serve_runs_them(parley: Parley) -> None:
    async with httpx.AsyncClient(base_url=parley.page, trust_env=False, timeout=10) as http:
        models = (await http.get("/api/v1/models")).json()["items"]
        routes = (await http.get("/api/v1/routes")).json()["items"]
    assert {each["role"]: each["default"] for each in routes} == {
        role: parley.routes.model(role) for role in ("stt", "llm", "tts")
    }
    for each in models:
        if each["name"] in {route["default"] for route in routes}:
            assert (each["status"], each["message"]) == ("RUNNING", "")
            assert each["replicas"]["running"] == each["replicas"]["wanted"] >= 1
            assert each["deployed_at"] is not None
