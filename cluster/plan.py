"""What a change of the cluster would do, before it is done: what comes, restarts and goes, and what that takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from cluster.profile import Profile
from cluster.schema import compose
from serve.contracts import ROLES

Application = dict[str, Any]

IN_PLACE = {"user_config", "num_replicas", "autoscaling_config", "max_ongoing_requests", "max_surge_percent"}
"""Serve applies these to replicas that run; anything else makes new ones (`ray.serve._private.config`)."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What is reserved in Ray's books."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_mb: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        """Return both together."""
        return Amount(self.cpus + other.cpus, self.gpus + other.gpus, self.memory_mb + other.memory_mb)

    def __sub__(self, other: Amount) -> Amount:
        """Return what is left."""
        return Amount(self.cpus - other.cpus, self.gpus - other.gpus, self.memory_mb - other.memory_mb)

    def holds(self, other: Amount) -> bool:
        """Whether this much can be taken of it; Ray counts in ten-thousandths."""
        left = self - other
        return min(left.cpus, left.gpus, left.memory_mb) > -1e-4

    def text(self) -> str:
        """Return it for a person."""
        named = ((self.cpus, "CPUs"), (self.gpus, "GPUs"), (self.memory_mb, "MB"))
        return ", ".join(f"{value:g} {name}" for value, name in named if value) or "nothing"


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference of two profiles.

    Attributes:
        added: Applications (models) that come up beside what runs.
        in_place: Applications that are told of a change and go on.
        restarted: Applications whose replicas are replaced, each by a new one first unless there is no room (`surge`).
        removed: Applications that go, when no route leads there.
        routes: Roles whose route changes: before and after.
        meanwhile: Taken at the most while it goes on, beside what runs now.
        after: Taken when it is done, beside what ran before; may be below 0.
        needs: What each replica takes that comes up at the fullest moment.
    """

    added: list[str]
    in_place: list[str]
    restarted: list[str]
    removed: list[str]
    routes: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    meanwhile: Amount = Amount()
    after: Amount = Amount()
    needs: list[Amount] = field(default_factory=list[Amount])

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.added or self.in_place or self.restarted or self.removed)

    def json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "added": self.added,
            "in_place": self.in_place,
            "restarted": self.restarted,
            "removed": self.removed,
            "routes": {role: {"before": before, "after": after} for role, (before, after) in self.routes.items()},
            "meanwhile": asdict(self.meanwhile),
            "after": asdict(self.after),
        }


def between(before: Profile, after: Profile) -> Plan:
    """Return what going from one profile to another does; ports stay as they are."""
    api = after.api.model_copy(update={"host": before.api.host, "port": before.api.port})
    after = after.model_copy(update={"livekit": before.livekit, "ray": before.ray, "api": api})
    old, new = _by_name(before), _by_name(after)
    both = [name for name in new if name in old and new[name] != old[name]]
    restarted = [name for name in both if not _in_place(old[name], new[name])]
    added = [name for name in new if name not in old]
    routes = {
        role: (a.model_dump(mode="json"), b.model_dump(mode="json"))
        for role in ROLES
        if (a := before.routes.route(role)) != (b := after.routes.route(role))
    }
    moments = list(_moments(old, new, added, restarted))
    fullest = max(moments, key=lambda needs: (_sum(needs).gpus, _sum(needs).cpus, _sum(needs).memory_mb))
    sums = [_sum(needs) for needs in moments]
    peak = Amount(*(max(getattr(each, name) for each in sums) for name in ("cpus", "gpus", "memory_mb")))
    return Plan(
        added=added,
        in_place=[name for name in both if name not in restarted],
        restarted=restarted,
        removed=[name for name in old if name not in new],
        routes=routes,
        meanwhile=peak,
        after=_sum(_all(new)) - _sum(_all(old)),
        needs=fullest,
    )


def fits(needs: Sequence[Amount], free: Sequence[Amount]) -> bool:
    """Return whether replicas find room on machines: each on the first that has it, the largest first.

    Args:
        needs: Of each replica.
        free: Of each machine.
    """
    left = list(free)
    for need in sorted(needs, key=lambda each: (each.gpus, each.cpus, each.memory_mb), reverse=True):
        place = next((index for index, amount in enumerate(left) if amount.holds(need)), None)
        if place is None:
            return False
        left[place] = left[place] - need
    return True


def free(gcs: str) -> list[Amount]:
    """Return what is not reserved on each machine of a cluster, as Ray tells it.

    Args:
        gcs: Address of Ray's control store, host:port.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status

    status: Any = get_cluster_status(gcs, timeout=10)
    found: list[Amount] = []
    for node in (*status.active_nodes, *status.idle_nodes):
        left = {each.resource_name: each.total - each.used for each in node.resource_usage.usage}
        found.append(Amount(left.get("CPU", 0.0), left.get("GPU", 0.0), left.get("memory", 0.0) / 2**20))
    return found


def _moments(
    old: dict[str, Application], new: dict[str, Application], added: list[str], restarted: list[str]
) -> Iterator[list[Amount]]:
    """Yield what comes up beside what ran, while models load, while the rest follows, and in the end."""
    coming = [need for name in added for need in _of(new[name])]
    models = [name for name in restarted if "model" in new[name]["args"]]
    yield coming + [need for name in models for need in _beside(old[name], new[name])]
    rest = [name for name in restarted if name not in models]
    # The models that were replaced are what they will be by now, and so is what they take.
    grown = [_grown(old[name], new[name]) for name in models]
    yield coming + grown + [need for name in rest for need in _beside(old[name], new[name])]
    yield coming + [_grown(old[name], new[name]) for name in new if name in old]


def _beside(old: Application, new: Application) -> list[Amount]:
    """Return what replacing an application's replicas takes beside the old ones."""
    if all(each.get("max_surge_percent", 0) == 0 for each in new["deployments"]):
        return [_grown(old, new)]
    return list(_of(new))


def _grown(old: Application, new: Application) -> Amount:
    more = _sum(list(_of(new))) - _sum(list(_of(old)))
    return Amount(max(0.0, more.cpus), max(0.0, more.gpus), max(0.0, more.memory_mb))


def _of(application: Application) -> Iterator[Amount]:
    """Yield what each replica takes that an application begins with; one that sleeps takes nothing yet."""
    for deployment in cast("list[dict[str, Any]]", application["deployments"]):
        scaling = deployment.get("autoscaling_config")
        count = scaling["min_replicas"] if scaling else deployment.get("num_replicas", 1)
        options = cast("dict[str, float]", deployment.get("ray_actor_options") or {})
        memory = options.get("memory", 0) / 2**20
        for _ in range(count):
            if bundles := deployment.get("placement_group_bundles"):
                for each in bundles:
                    yield Amount(each.get("CPU", 0.0), each.get("GPU", 0.0), each.get("memory", 0) / 2**20)
            else:
                yield Amount(options.get("num_cpus", 0.0), options.get("num_gpus", 0.0), memory)


def _all(applications: dict[str, Application]) -> list[Amount]:
    return [amount for each in applications.values() for amount in _of(each)]


def _sum(amounts: Sequence[Amount]) -> Amount:
    return sum(amounts, Amount())


def _in_place(old: Application, new: Application) -> bool:
    return _fixed(old) == _fixed(new)


def _fixed(application: Application) -> dict[str, Any]:
    """Return what cannot change without new replicas."""
    deployments = [
        {key: value for key, value in each.items() if key not in IN_PLACE} for each in application["deployments"]
    ]
    return {**application, "deployments": deployments}


def _by_name(profile: Profile) -> dict[str, Application]:
    return {each["name"]: each for each in compose(profile)["applications"]}
