"""What Serve is told of the API."""

from __future__ import annotations

from typing import Any

import pytest

from api.applications import api
from api.config import ApiConfig
from serve.config import Replicas, Routes

pytestmark = pytest.mark.unit

ROUTES = Routes.model_validate({"stt": "a", "llm": "b", "tts": "c"})


def test_the_number_of_replicas_is_no_argument_of_theirs() -> None:
    def said(replicas: Replicas) -> dict[str, Any]:
        return api(ApiConfig(replicas=replicas), "parley", [], ROUTES, {}, [])

    one, many = said(Replicas()), said(Replicas(min=2, max=10))
    assert one["args"] == many["args"], "what runs would be replaced"
    assert one["deployments"][0]["num_replicas"] == 1
    assert many["deployments"][0]["autoscaling_config"]["max_replicas"] == 10
