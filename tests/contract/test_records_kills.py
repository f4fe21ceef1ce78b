"""Whoever stores records may die at any line: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.databases import database_url, postgres

__all__ = ["database_url", "postgres"]

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


def test_killed_at_any_step_nothing_is_lost_or_twice(database_url: str) -> None:
    """A process that stores a call is killed at each so manieth line and statement; another one goes on."""
    command = [sys.executable, "-m", "tests.contract.records_kills", database_url, "31"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 250, "so few steps cannot be all of it"
