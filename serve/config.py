"""The part of a profile that describes models: what runs, at what size, and which role it serves."""

from __future__ import annotations

from typing import Annotated, Any

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


class Replicas(Strict):
    """Bounds of autoscaling; equal bounds mean a fixed number."""

    min: int = Field(default=1, ge=0)
    max: int = Field(default=1, ge=1)
    target_ongoing: float = Field(default=2.0, gt=0, description="Requests in progress that one replica should carry")

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
        }
        return {"autoscaling_config": scaling}


class ModelConfig(Strict):
    """One model: a Serve application of its own."""

    name: Name
    engine: str = Field(description="A name of the registry; `parley models` lists them")
    options: dict[str, Any] = Field(default_factory=dict, description="The engine's own options")
    resources: Resources = Field(default_factory=Resources)
    replicas: Replicas = Field(default_factory=Replicas)
    max_ongoing: int = Field(default=8, ge=1, description="Requests that one replica works on at once")


class Routes(Strict):
    """Which model serves a role now. Data, not code: a change reaches live replicas without a restart."""

    stt: Name
    llm: Name
    tts: Name

    def model(self, role: Role) -> str:
        """Return the name of the model that serves a role."""
        return str(getattr(self, role))


DEPLOYMENTS: dict[Role, str] = {"stt": "SpeechRecognition", "llm": "Chat", "tts": "Speech"}
"""The deployment inside a model's application, by role, as Serve and its dashboard show it."""
