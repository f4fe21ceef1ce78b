"""A model takes over a role from another one under live calls: a share at a time, judged by what the calls were like.

The new model comes up beside the old one and takes a share of the calls; each call stays on one side. Both sides are
compared by a gate. The share grows, or all calls go back, and the reason is said either way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import gate as gates
from cluster.gate import Gate, Judgement
from cluster.profile import Profile
from cluster.samples import Source
from serve import registry
from serve.config import ModelConfig, Route
from serve.contracts import Role
from serve.errors import ConfigError, ParleyError

HALF = 0.5
"""The second step; after it there is no old side to compare with, so the third one is all calls."""

POLL_SECONDS = 5.0
TELL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a swap is to do.

    Attributes:
        role: Whose model.
        old: The role's default model.
        new: The one that takes over.
        steps: Shares of the calls, each above the one before.
        gate: What the new model must show at each step.
        keep: The old model stays loaded, and stands by.
    """

    role: Role
    old: str
    new: ModelConfig
    steps: tuple[float, ...]
    gate: Gate
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a swap ended.

    Attributes:
        promoted: The new model has the role; otherwise all is as it was.
        why: In a sentence.
        steps: The share of each step, and what was judged in its end.
    """

    promoted: bool
    why: str
    steps: tuple[tuple[float, Judgement], ...]

    def json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        steps = [
            {
                "share": share,
                "outcome": judged.outcome,
                "why": judged.why,
                "findings": [each._asdict() for each in judged.findings],
            }
            for share, judged in self.steps
        ]
        return {"promoted": self.promoted, "why": self.why, "steps": steps}


def ask(
    running: Profile, role: Role, model: str, catalog: Sequence[ModelConfig], canary: float, gate: Gate, keep: bool
) -> Asked:
    """Check what was asked for.

    Args:
        running: The profile that runs.
        role: Whose model.
        model: Name of the new one.
        catalog: Where it is found, beside the models that run.
        canary: The first share.
        gate: What it must show.
        keep: The old model stays loaded.

    Raises:
        ConfigError: There is no such model, it serves another role, or has the role already.
    """
    route = running.routes.route(role)
    known = {each.name: each for each in (*running.models, *catalog)}
    if model not in known:
        fitting = sorted(name for name, each in known.items() if registry.entry(each.engine).role == role)
        raise ConfigError(
            f"no model is named {model!r}; the {role} models are {', '.join(fitting)}; --profile F has more"
        )
    new = known[model]
    if (serves := registry.entry(new.engine).role) != role:
        raise ConfigError(f"{model!r} is a {serves} model, not one for {role}")
    if model == route.default:
        raise ConfigError(f"{model!r} has the role {role} already; a changed model needs a name of its own")
    others = sum(share for name, share in route.weights.items() if name != model)
    steps = (canary, HALF) if canary < HALF else (canary,)
    if others + steps[-1] > 1:
        raise ConfigError(f"{others:.0%} of the calls go to other models already; `parley deploy` can end that first")
    return Asked(role, route.default, new, steps, gate, keep)


def sharing(running: Profile, asked: Asked, share: float) -> Profile:
    """Return the profile in which the new model takes a share of the calls."""
    route = running.routes.route(asked.role)
    weights = {name: part for name, part in route.weights.items() if name != asked.new.name}
    # The new one last: the others' calls stay where they are.
    changed = route.model_copy(update={"weights": {**weights, asked.new.name: share}})
    return _with(running, asked, changed)


def beside(running: Profile, asked: Asked) -> Profile:
    """Return the profile in which the new model is loaded, and takes no calls."""
    return _with(running, asked, running.routes.route(asked.role))


def promoted(running: Profile, asked: Asked) -> Profile:
    """Return the profile in which the new model has the role; the old one goes, unless somebody names it still."""
    route = running.routes.route(asked.role)
    fallbacks = tuple(name for name in route.fallbacks if name != asked.new.name)
    if asked.keep:
        fallbacks = (asked.old, *(name for name in fallbacks if name != asked.old))
    weights = {name: part for name, part in route.weights.items() if name != asked.new.name}
    changed = Route(default=asked.new.name, fallbacks=fallbacks, weights=weights, patience=route.patience)
    profile = _with(running, asked, changed)
    named = {name for assistant in profile.agent.everybody().values() for name in assistant.models.values()}
    if asked.old in named or asked.old in changed.names():
        return profile
    return profile.model_copy(update={"models": [each for each in profile.models if each.name != asked.old]})


def _with(running: Profile, asked: Asked, route: Route) -> Profile:
    kept = [each for each in running.models if each.name != asked.new.name]
    return running.model_copy(
        update={"models": [*kept, asked.new], "routes": running.routes.model_copy(update={asked.role: route})}
    )


class Swap:
    """One swap, from the first share to its end.

    Args:
        running: The profile that runs before it.
        asked: What is to be done.
        put: Brings the cluster to a profile and notes why; returns when everything runs.
        source: Where turns are read.
        say: Told what happens, for a person.
        poll: Seconds between two looks at the turns.
        examine: Judges the new model while it is loaded and takes no calls; None: nobody does.
    """

    def __init__(
        self,
        running: Profile,
        asked: Asked,
        put: Callable[[Profile, str], Awaitable[None]],
        source: Source,
        say: Callable[[str], None],
        poll: float = POLL_SECONDS,
        examine: Callable[[Asked, Profile], Awaitable[Judgement]] | None = None,
    ) -> None:
        self._running, self._asked, self._put, self._source = running, asked, put, source
        self._say, self._poll, self._examine = say, poll, examine
        self._judged: list[tuple[float, Judgement]] = []

    async def run(self) -> Outcome:
        """Go through the steps.

        Raises:
            ParleyError: The new model did not come up, or the turns cannot be read; all is as it was.
        """
        asked, begun = self._asked, False
        if asked.gate.evaluation is not None and self._examine is None:
            raise ConfigError("the gate asks for an evaluation, and nobody is here to make it: `parley swap` does")
        title = f"{asked.role}: {asked.old} to {asked.new.name}"
        try:
            if self._examine is not None:
                loaded = beside(self._running, asked)
                await self._put(loaded, f"{title}, to be evaluated")
                begun = True
                judged = await self._examine(asked, loaded)
                self._judged.append((0.0, judged))
                if judged.outcome != "promote":
                    return await self._back(title, judged.why)
                self._say(judged.why)
            for share in asked.steps:
                self._say(f"{asked.new.name} takes {share:.0%} of the calls")
                await self._put(sharing(self._running, asked, share), f"{title}, {share:.0%} of the calls")
                begun = True
                judged = await self._watch(time.time())
                self._judged.append((share, judged))
                if judged.outcome != "promote":
                    return await self._back(title, judged.why)
                self._say(f"at {share:.0%}: {judged.why}")
            await self._put(promoted(self._running, asked), f"{title}, all calls")
        except BaseException as error:  # also Ctrl-C: nobody watches over the shares any more
            # A first step that did not come up has changed nothing; one that was broken off may have.
            if begun or not isinstance(error, ParleyError):
                await self._back(title, str(error) if isinstance(error, ParleyError) else "it was broken off")
            raise
        return self._ended(True, self._judged[-1][1].why)

    async def _back(self, title: str, why: str) -> Outcome:
        self._say(f"all calls go back to {self._asked.old}: {why}")
        await self._put(self._running, f"{title}, rolled back: {why}")
        return self._ended(False, why)

    def _ended(self, won: bool, why: str) -> Outcome:
        return Outcome(won, why, tuple(self._judged))

    async def _watch(self, since: float) -> Judgement:
        """Wait until the turns of a step decide, or its time is over."""
        gate, asked = self._asked.gate, self._asked
        until, looks, told, said = since + gate.max_minutes * 60, 0, "", 0.0
        while True:
            turns = await self._source.since(since, asked.role)
            old = [turn for turn in turns if turn.model == asked.old]
            new = [turn for turn in turns if turn.model == asked.new.name]
            if failing := gates.tripped(new, gate):
                return failing
            over = time.time() >= until
            allowed = gates.enough(old, new, gate)
            count = f"{len(old)} turns of {asked.old}, {len(new)} of {asked.new.name}"
            if allowed > looks or (over and allowed):
                looks = max(looks + 1, allowed)
                judged = await asyncio.to_thread(gates.judge, old, new, gate, looks)
                if judged.outcome != "wait":
                    return judged
                told = judged.why
            if over:
                reason = told or f"at least {gate.min_turns} turns of {gate.min_calls} calls are needed of each"
                return Judgement("roll back", f"not decided within {gate.max_minutes:g} minutes ({count}): {reason}")
            if time.monotonic() - said >= TELL_SECONDS:
                said = time.monotonic()
                self._say(count)
            # Turns are stored by other processes, which tell nobody.
            await asyncio.sleep(min(self._poll, max(0.0, until - time.time())))
