"""The part of a profile that describes models: what runs, at what size, and which role it serves."""

from __future__ import annotations

import random
import zlib
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.contracts import Role

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?$")]
"""Names of models and applications: they become part of addresses, labels and metrics."""


class Strict(BaseModel):
    """Base of all configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Strict):
    """What one replica reserves in Ray's books (not a limit that is enforced)."""

    cpus: float = Field(default=0.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    memory_mb: int = Field(default=0, ge=0)
    spread: bool = Field(
        default=False,
        description="The GPUs may be on several machines (a placement group); the engine starts its workers on them",
    )

    @model_validator(mode="after")
    def _whole(self) -> Resources:
        if self.spread and (self.gpus < 2 or self.gpus % 1):
            raise ValueError(f"spread needs two or more whole gpus, not {self.gpus:g}")
        return self

    def deployment(self) -> dict[str, Any]:
        """Return what Serve's declarative configuration says of what a replica reserves."""
        process: dict[str, float] = {"CPU": self.cpus, "memory": self.memory_mb * 2**20}
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory_mb * 2**20}
        if not self.spread:
            return {"ray_actor_options": options}
        # The replica's process lives in the first bundle and leaves the GPU there to the engine's worker. One GPU in
        # each: vLLM takes no bundle that has more.
        first = {name: amount for name, amount in {**process, "GPU": 1.0}.items() if amount}
        return {
            "ray_actor_options": {**options, "num_gpus": 0},
            "placement_group_bundles": [first, *({"GPU": 1.0} for _ in range(int(self.gpus) - 1))],
            "placement_group_strategy": "PACK",
        }


class Replicas(Strict):
    """Bounds of autoscaling; equal bounds mean a fixed number, a lower bound of 0 a model that sleeps."""

    min: int = Field(default=1, ge=0)
    max: int = Field(default=1, ge=1)
    target_ongoing: float = Field(default=2.0, gt=0, description="Requests in progress that one replica should carry")
    surge: bool = Field(
        default=True,
        description="A changed model starts before the old one goes; false where both have no room",
    )
    idle_seconds: float = Field(default=300.0, gt=0, description="Replicas that are not needed go after this long")

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self

    def deployment(self) -> dict[str, Any]:
        """Return what Serve's declarative configuration says of a deployment's replicas."""
        if self.min == self.max:
            return {"num_replicas": self.min}
        scaling = {
            "min_replicas": self.min,
            "max_replicas": self.max,
            "target_ongoing_requests": self.target_ongoing,
            # Up at once, for somebody waits; down with patience. Serve's own 30 s are for web pages.
            "upscale_delay_s": 0.0,
            "downscale_delay_s": self.idle_seconds,
            "look_back_period_s": 2.0,
            "metrics_interval_s": 0.5,
        }
        return {"autoscaling_config": scaling}


class Batch(Strict):
    """Requests of different calls that go through the model in one pass, where the engine can."""

    size: int = Field(default=8, ge=2, le=128, description="Most requests in one pass")
    wait_ms: float = Field(default=10.0, ge=0, le=1000, description="How long the first one waits for others")


class ModelConfig(Strict):
    """One model: a Serve application of its own."""

    name: Name
    engine: str = Field(description="A name of the registry; `parley models` lists them")
    options: dict[str, Any] = Field(default_factory=dict, description="The engine's own options")
    resources: Resources = Field(default_factory=Resources)
    replicas: Replicas = Field(default_factory=Replicas)
    batch: Batch | None = Field(default=None, description="Gather requests of different calls")
    max_ongoing: int = Field(default=8, ge=1, description="Requests that one replica works on at once")


class Route(Strict):
    """Which models serve a role: one answers, others stand by. In YAML the name of the default alone will do."""

    default: Name
    fallbacks: tuple[Name, ...] = Field(default=(), description="Asked in this order where the one before fails")
    weights: dict[Name, float] = Field(
        default_factory=dict, description="Shares of calls, 0 to 1, that other models take; the rest is the default's"
    )
    patience: float = Field(
        default=4.0, gt=0, le=60, description="Seconds until a model's first sign, after which the next one is asked"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"default": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _shares(self) -> Route:
        if any(share < 0 for share in self.weights.values()) or sum(self.weights.values()) > 1:
            raise ValueError("weights are shares from 0 to 1, and at most 1 together")
        return self

    def names(self) -> tuple[str, ...]:
        """Return every model it names, the default first."""
        return tuple(dict.fromkeys((self.default, *self.fallbacks, *self.weights)))

    def sides(self) -> tuple[str, ...]:
        """Return the models that take a share of the calls, the default first."""
        return tuple(dict.fromkeys((self.default, *self.weights)))

    def order(self, call: str, side: str | None = None) -> tuple[str, ...]:
        """Return the models to ask, first to last.

        Args:
            call: Its id decides the share it falls into, so that a call stays on one side; "" falls anywhere.
            side: Where the call was before the shares changed: it stays there as long as that model takes calls.
        """
        first = side if side in self.sides() else None
        return tuple(dict.fromkeys((first or self._share(call), self.default, *self.fallbacks)))

    def _share(self, call: str) -> str:
        point = zlib.crc32(call.encode()) / 2**32 if call else random.random()  # noqa: S311  # a share, no secret
        for name, share in self.weights.items():
            if point < share:
                return name
            point -= share
        return self.default


class Routes(Strict):
    """Which models serve each role now. Data, not code: a change reaches live replicas without a restart."""

    stt: Route
    llm: Route
    tts: Route

    def route(self, role: Role) -> Route:
        """Return the route of a role."""
        return cast("Route", getattr(self, role))

    def model(self, role: Role) -> str:
        """Return the name of the model that serves a role by default."""
        return self.route(role).default


DEPLOYMENTS: dict[Role, str] = {"stt": "SpeechRecognition", "llm": "Chat", "tts": "Speech"}
"""The deployment inside a model's application, by role, as Serve and its dashboard show it."""
