"""The YAML of docs/evaluation.md is what suites and gates take, and the page names every measure and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.evaluation import measures
from cluster.evaluation.limits import Limits
from cluster.evaluation.suite import Answer, Case, Expect, Heard, Suite
from cluster.gate import Gate

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()


def test_the_yaml_of_the_page_is_taken() -> None:
    suite, limits, gate = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    case: dict[str, Any] = Suite.model_validate(suite).cases[0].model_dump(exclude_unset=True)
    Limits.model_validate(limits)
    assert Gate.model_validate(gate).evaluation
    assert set(Case.model_fields) - set(case) == {"audio", "sound"}
    assert set(Expect.model_fields) == set(case["expect"])
    assert set(Heard.model_fields) == set(case["expect"]["heard"])
    assert set(Answer.model_fields) == set(case["expect"]["answer"])


def test_every_measure_is_explained() -> None:
    assert [each.name for each in measures.MEASURES if f"`{each.name}`" not in PAGE] == []
