"""One kill of each kind in mid-turn: no turn is lost or doubled, and the call goes on. `make chaos` does more."""

from __future__ import annotations

import pytest

from cluster import status
from cluster.bench.chaos import KILLS, Killer, Phase, Victim
from cluster.profile import Profile
from tests.conftest import Parley

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def killer(parley: Parley) -> Killer:
    return Killer(parley.page, parley.addresses["dashboard"] or "", Profile.model_validate(status.current().settings))


@pytest.mark.parametrize(("victim", "phase"), KILLS)
async def test_a_kill_loses_and_doubles_nothing(killer: Killer, parley: Parley, victim: Victim, phase: Phase) -> None:
    await parley.until_calls(0)
    result = await killer.kill(victim, phase)
    print(victim, phase, result)
    assert result.answered == 1, result
    assert result.goes_on, result
    await parley.until_calls(0)
