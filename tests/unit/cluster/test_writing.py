"""Which work was the interrupted answer's, and how long the model wrote on."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from cluster.bench.report import Report
from cluster.bench.writing import Writing
from serve.work import Work

pytestmark = pytest.mark.unit


async def told(*works: Work) -> Report:
    async def ask() -> Sequence[Work]:
        return works

    writing = Writing(ask)
    shift = time.perf_counter() - time.monotonic()
    await writing.interrupted(asked=10.0 + shift, began=12.0 + shift)
    report = Report("barge-in")
    writing.add(report)
    return report


async def test_the_answers_work_is_the_last_that_began_before_the_caller_spoke() -> None:
    report = await told(
        Work(began=5.0, last=5.5, ended=5.5),
        Work(began=9.8, last=9.9, ended=9.9),
        Work(began=10.1, last=12.8, ended=12.9, stopped=True),
        Work(began=12.7, last=13.5, ended=13.5),
    )
    assert [round(figure.p50 or 0) for figure in report.figures] == [800, 900]
    assert list(report.facts.values()) == ["1 of 1", "1 of 1"]


async def test_an_answer_that_was_written_before_says_nothing_of_barge_in() -> None:
    report = await told(Work(began=10.1, last=11.0, ended=11.0))
    assert [figure.n for figure in report.figures] == [0, 0]
    assert list(report.facts.values()) == ["0 of 1", "0 of 0"]


async def test_an_answer_that_ends_by_itself_was_not_stopped() -> None:
    report = await told(Work(began=10.1, last=12.1, ended=12.1))
    assert [figure.n for figure in report.figures] == [0, 0]
    assert list(report.facts.values()) == ["1 of 1", "0 of 1"]


async def test_a_replica_that_did_other_work_tells_nothing() -> None:
    report = await told(Work(began=5.0, last=5.5, ended=5.5))
    assert report.facts["answers of which the model tells nothing"] == 1
