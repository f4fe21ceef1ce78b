"""`make scan` tells what was found from what could not be asked."""

from __future__ import annotations

import json

import pytest

from cluster import scan

pytestmark = pytest.mark.unit


def test_faults_of_python_packages_are_named_with_what_mends_them() -> None:
    clean: dict[str, object] = {"name": "a", "version": "1", "vulns": []}
    faulty = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    found = scan.python_faults(json.dumps({"dependencies": [clean, faulty]}), "")
    assert found.faults == ["b 2: PYSEC-1, mended in 3"]
    assert str(scan.python_faults(json.dumps({"dependencies": [clean]}), "")) == "Python packages (1): nothing found"


def test_faults_of_npm_packages_are_named() -> None:
    about = {"vulnerabilities": {"x": {"severity": "high", "range": "<2"}}, "metadata": {"dependencies": {"total": 9}}}
    assert scan.page_faults(json.dumps(about), "").faults == ["x: high (<2)"]


@pytest.mark.parametrize("out", ["", "no json", '{"error": {"code": "ENOTFOUND"}, "message": "not reached"}'])
def test_a_service_that_does_not_answer_is_no_clean_result(out: str) -> None:
    for result in (scan.python_faults(out, "Traceback\nnot reached"), scan.page_faults(out, "x\nnot reached")):
        assert result.faults is None
        assert "not scanned (not reached)" in str(result)


def test_a_fault_fails_and_a_service_that_is_away_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, away, faulty = scan.Result("a", []), scan.Result("b", None, "away"), scan.Result("c", ["d"])
    for last, status in ((clean, 0), (away, 0), (faulty, 1)):
        for name, result in (("code", clean), ("python", away), ("page", last)):
            monkeypatch.setattr(scan, name, lambda result=result: result)
        assert scan.main() == status


def test_our_own_code_is_clean_by_bandits_rules() -> None:
    assert scan.code().faults == []
