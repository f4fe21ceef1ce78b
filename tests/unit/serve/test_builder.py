"""What Serve is told of a model: checked against Serve's own schema, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError
from ray.serve.schema import ServeApplicationSchema

from serve.builder import application
from serve.config import ModelConfig, Resources
from serve.errors import EngineFailed
from serve.replica import Replica

pytestmark = pytest.mark.unit


def described(**resources: Any) -> dict[str, Any]:
    """Return the deployment of a model with these resources, as Serve has read it."""
    model = ModelConfig(name="big", engine="vllm", options={"model": "some/model"}, resources=Resources(**resources))
    entry = application(model)
    read = cast("Any", ServeApplicationSchema).model_validate(entry).model_dump(exclude_unset=True)
    return read["deployments"][0]


def test_gpus_of_one_machine_belong_to_the_replica() -> None:
    deployment = described(cpus=2, gpus=4, memory_mb=1024)
    assert deployment["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 4, "memory": 2**30}
    assert "placement_group_bundles" not in deployment


def test_a_part_of_a_gpu_can_be_reserved() -> None:
    assert described(gpus=0.4)["ray_actor_options"]["num_gpus"] == 0.4


def test_gpus_of_several_machines_are_a_placement_group() -> None:
    deployment = described(cpus=2, gpus=3, memory_mb=1024, spread=True)
    first, *others = deployment["placement_group_bundles"]
    assert first == {"CPU": 2, "memory": 2**30, "GPU": 1}
    assert others == [{"GPU": 1}, {"GPU": 1}]
    assert deployment["placement_group_strategy"] == "PACK"
    options = deployment["ray_actor_options"]
    assert options["num_gpus"] == 0
    # Serve puts the replica into the first bundle and refuses one that does not fit.
    assert options["num_cpus"] <= first["CPU"]
    assert options["memory"] <= first["memory"]


@pytest.mark.parametrize("gpus", [0, 1, 2.5])
def test_only_whole_gpus_can_be_spread(gpus: float) -> None:
    with pytest.raises(ValidationError, match="spread needs two or more whole gpus"):
        Resources(gpus=gpus, spread=True)


async def test_health_asks_an_engine_that_can_tell() -> None:
    class Broken:
        async def check(self) -> None:
            raise EngineFailed("gone")

    replica: Any = SimpleNamespace(engine=object(), _failures=0)
    await Replica.check_health(replica)
    replica.engine = _with_engine(Broken)
    with pytest.raises(EngineFailed, match="gone"):
        await Replica.check_health(replica)


def _with_engine(cls: Any) -> Any:
    """Return an object of a class that has what every engine has besides."""

    async def nothing(self: Any) -> None: ...

    return type("Engine", (cls,), {"capabilities": None, "load": nothing, "close": nothing})()
