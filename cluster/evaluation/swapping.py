"""A swap's evaluation: both models are asked the same suite straight, before the new one takes a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster import intervals, status
from cluster.connect import connect, disconnect
from cluster.evaluation import measures, running, suite
from cluster.evaluation.checks import Result
from cluster.gate import Finding, Gate, Judgement
from cluster.profile import Profile
from cluster.swap import Asked
from serve.errors import ConfigError

MEASURE = "evaluation_score"


def check(gate: Gate) -> None:
    """Read the gate's suite, so that what is wrong in it is said before anything is loaded.

    Raises:
        ConfigError: It cannot be used.
    """
    if gate.evaluation is not None:
        suite.load(gate.evaluation.suite)


async def examine(asked: Asked, profile: Profile, say: Callable[[str], None]) -> Judgement:
    """Ask both models; both are loaded.

    Args:
        asked: The swap; its gate has an `evaluation`.
        profile: That runs now.
        say: Told how far it is.

    Raises:
        ConfigError: The suite cannot be used, or has nothing to ask such a model.
    """
    rules = asked.gate.evaluation
    assert rules is not None
    loaded = suite.load(rules.suite)
    await asyncio.to_thread(connect, status.current())
    # Imports ray, which reads the environment that `connect` sets.
    from cluster.evaluation.straight import Straight

    found: list[list[Result]] = []
    try:
        for model in (asked.old, asked.new.name):
            straight = Straight(profile.routes, model, asked.role, loaded, profile.agent.everybody())
            target = running.Target(model, asked.role, straight, straight.unfit)
            say(f"{loaded.name}: {len(loaded.cases)} cases straight at {model}")
            found.append(await running.run(loaded, target, lambda _: None, rounds=rules.rounds))
    finally:
        # While this loop runs: a handle that outlives it complains, and the swap goes on for an hour.
        await asyncio.to_thread(disconnect)
    return judge(asked.gate, *found)


def judge(gate: Gate, old: list[Result], new: list[Result]) -> Judgement:
    """Compare two runs of the same cases.

    A model passes whose score is high enough, and not lower than the old one's by more than is allowed. Cases are the
    same for both, so it is the scores themselves that are held against the limits; the interval says how far another
    choice of such cases could move them.

    Raises:
        ConfigError: No case of the suite asks such a model anything.
    """
    rules = gate.evaluation
    assert rules is not None
    change = measures.compare(old, new)["measures"].get("score")
    if change is None:
        raise ConfigError(f"the gate's suite {rules.suite} has no case for this model")
    bounds = intervals.Bounds(-change["difference"], -change["upper"], -change["lower"])
    low = rules.min_score is not None and change["new"] < rules.min_score
    lost = rules.loss is not None and bounds.value > rules.loss
    allowed = 1.0 if rules.loss is None else rules.loss
    verdict = "worse" if low or lost else "ok"
    one = Finding(MEASURE, change["old"], change["new"], bounds.lower, bounds.upper, allowed, verdict)
    if low:
        wanted = f"{rules.min_score:.0%} is wanted"
        return Judgement(
            "roll back", f"evaluation score {change['new']:.1%} of {change['cases']} cases, {wanted}", (one,)
        )
    if lost:
        return Judgement("roll back", one.text(), (one,))
    return Judgement("promote", one.text(), (one,))
