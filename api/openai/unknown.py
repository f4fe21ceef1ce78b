"""What is not there under /v1, said in the shape of everything else there."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.openai.errors import Refused

router = APIRouter(prefix="/v1", include_in_schema=False)


@router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def unknown(request: Request, path: str) -> None:
    """Refuse."""
    there = "/v1/models, /v1/chat/completions, /v1/audio/transcriptions and /v1/audio/speech"
    message = f"{request.method} /v1/{path[:80]} is not here; there are {there}"
    raise Refused(404, message, code="unknown_url")
