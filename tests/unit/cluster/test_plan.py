"""Unit: the difference of two profiles, what it takes meanwhile, and whether that fits."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import plan, profile
from cluster.plan import Amount
from cluster.profile import Profile
from serve.config import ModelConfig, Replicas, Resources, Route

pytestmark = pytest.mark.unit


@pytest.fixture
def running() -> Profile:
    return profile.load("local")


def change(running: Profile, models: list[ModelConfig], **routes: Route) -> Profile:
    return running.model_copy(update={"models": models, "routes": running.routes.model_copy(update=routes)})


def llm(running: Profile, **values: Any) -> ModelConfig:
    return running.model(running.routes.model("llm")).model_copy(update=values)


def test_the_same_profile_changes_nothing(running: Profile) -> None:
    found = plan.between(running, running)
    assert found.empty
    assert (found.meanwhile, found.after, found.routes) == (Amount(), Amount(), {})


def test_ports_are_not_changed(running: Profile) -> None:
    moved = running.model_copy(update={"api": running.api.model_copy(update={"port": 9999})})
    assert plan.between(running, moved).empty


def test_a_model_for_another(running: Profile) -> None:
    old = llm(running)
    new = llm(running, name="llm-b", resources=Resources(cpus=1.5, gpus=0.5, memory_mb=100))
    after = change(running, [*(each for each in running.models if each != old), new], llm=Route(default="llm-b"))
    found = plan.between(running, after)
    assert (found.added, found.removed, found.restarted) == (["llm-b"], [old.name], [])
    assert set(found.in_place) == {"agent", "api"}, "routes reach what carries calls without a restart"
    assert found.routes["llm"][0]["default"] == old.name
    assert found.routes["llm"][1]["default"] == "llm-b"
    assert found.meanwhile == Amount(1.5, 0.5, 100)
    assert found.after == Amount(1.5, 0.5, 100) - Amount(old.resources.cpus, 0, old.resources.memory_mb)


def test_a_changed_model_takes_its_place_twice_unless_it_may_not(running: Profile) -> None:
    two = Replicas(min=2, max=2)
    before = change(running, [llm(running, resources=Resources(gpus=1), replicas=two)])
    options = {"options": {"temperature": 0.3}}
    beside = plan.between(before, change(before, [llm(before, **options)]))
    assert (beside.restarted, beside.added, beside.removed) == ([llm(running).name], [], [])
    assert beside.meanwhile.gpus == 2
    assert beside.needs.count(Amount(gpus=1)) == 2
    tight = two.model_copy(update={"surge": False})
    instead = plan.between(before, change(before, [llm(before, replicas=tight, **options)]))
    assert instead.meanwhile.gpus == 0
    grown = llm(before, replicas=tight, resources=Resources(gpus=1.5))
    assert plan.between(before, change(before, [grown])).meanwhile.gpus == 1


def test_a_model_that_sleeps_takes_nothing_yet(running: Profile) -> None:
    sleeper = llm(running, name="llm-s", resources=Resources(gpus=4), replicas=Replicas(min=0, max=2))
    assert plan.between(running, change(running, [*running.models, sleeper])).meanwhile == Amount()


def test_gpus_on_several_machines_are_single_ones(running: Profile) -> None:
    wide = llm(running, name="llm-w", resources=Resources(gpus=3, spread=True))
    found = plan.between(running, change(running, [*running.models, wide]))
    assert found.meanwhile.gpus == 3
    assert max(need.gpus for need in found.needs) == 1


@pytest.mark.parametrize(
    ("needs", "free", "fit"),
    [
        ([], [], True),
        ([Amount(gpus=1)], [Amount(gpus=0.5), Amount(gpus=0.5)], False),
        ([Amount(gpus=0.5), Amount(gpus=0.5)], [Amount(gpus=1)], True),
        ([Amount(cpus=1), Amount(cpus=2)], [Amount(cpus=1), Amount(cpus=2)], True),
        ([Amount(cpus=0.3), Amount(cpus=0.6)], [Amount(cpus=0.9)], True),
        ([Amount(memory_mb=200)], [Amount(cpus=8, memory_mb=199)], False),
    ],
)
def test_each_replica_needs_room_on_one_machine(needs: list[Amount], free: list[Amount], fit: bool) -> None:
    assert plan.fits(needs, free) is fit


def test_it_is_one_json_object(running: Profile) -> None:
    after = change(running, [*running.models, llm(running, name="llm-b")])
    assert plan.between(running, after).json()["added"] == ["llm-b"]
