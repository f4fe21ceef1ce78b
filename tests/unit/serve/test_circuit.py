"""The circuit breaker, by a clock that the test moves."""

from __future__ import annotations

import pytest

from serve.circuit import Circuit

pytestmark = pytest.mark.unit


class FakeClock:
    """Stands where `time.monotonic` does."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def broken(clock: FakeClock) -> Circuit:
    circuit = Circuit(failures=3, pause=5.0, longest=12.0, clock=clock)
    for _ in range(3):
        assert circuit.allow()
        circuit.failed()
    return circuit


def test_opens_after_failures_in_a_row(clock: FakeClock) -> None:
    circuit = broken(clock)
    assert circuit.open
    assert not circuit.allow()


def test_a_success_between_starts_the_count_again(clock: FakeClock) -> None:
    circuit = Circuit(failures=2, clock=clock)
    for _ in range(5):
        circuit.failed()
        circuit.succeeded()
    assert circuit.allow()
    circuit.failed()
    assert circuit.allow()


def test_one_probe_after_the_pause(clock: FakeClock) -> None:
    circuit = broken(clock)
    clock.now += 4.9
    assert not circuit.allow()
    clock.now += 0.2
    assert circuit.allow()
    assert not circuit.allow(), "a second one while the first is out"


def test_the_probes_success_closes_it(clock: FakeClock) -> None:
    circuit = broken(clock)
    clock.now += 5.1
    assert circuit.allow()
    circuit.succeeded()
    assert not circuit.open
    assert circuit.allow()
    circuit.failed()
    assert circuit.allow(), "one failure opened it again"


def test_each_failed_probe_doubles_the_pause_up_to_the_longest(clock: FakeClock) -> None:
    circuit = broken(clock)
    clock.now += 5.1
    for pause in (10.0, 12.0, 12.0):
        assert circuit.allow()
        circuit.failed()
        clock.now += pause - 0.1
        assert not circuit.allow()
        clock.now += 0.2


def test_a_probe_that_never_comes_back_does_not_keep_it_open_for_ever(clock: FakeClock) -> None:
    circuit = broken(clock)
    clock.now += 5.1
    assert circuit.allow()
    clock.now += 60.0
    assert circuit.allow()
