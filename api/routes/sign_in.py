"""Signing in with the issuer of the profile (`api.oidc`), and out."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse

from api.access import cookies
from api.problems import Problem, problems

router = APIRouter(prefix="/api/v1/sign-in", tags=["people"])

_NEXT = "next"
"""In the session of a sign-in: where it leads to."""


class Ways(BaseModel):
    """How people may sign in here."""

    local: bool = Field(description="This machine's user is signed in already")
    openid: bool = Field(description="GET /api/v1/sign-in/openid leads to the issuer")


@router.get("", operation_id="get_sign_in_ways")
async def ways(request: Request) -> Ways:
    """How people sign in here."""
    return Ways(local=request.app.state.config.local, openid=request.app.state.issuer is not None)


@router.get(
    "/openid",
    operation_id="sign_in_with_openid",
    status_code=302,
    response_class=RedirectResponse,
    responses={302: {"description": "To the issuer"}, **problems(404)},
)
async def openid(
    request: Request, to: Annotated[str, Query(alias="next", max_length=500, description="A path of this page")] = "/"
) -> Response:
    """Send a browser to the issuer; it comes back to `/openid/back`, and then to `next`."""
    issuer = _issuer(request)
    request.session[_NEXT] = _path(to)
    return await issuer.ask(request, _address(request, "sign_in_back"))


@router.get(
    "/openid/back",
    name="sign_in_back",
    operation_id="finish_sign_in",
    status_code=302,
    response_class=RedirectResponse,
    responses={302: {"description": "Signed in"}, **problems(404)},
)
async def back(request: Request) -> Response:
    """Take what the issuer says; the browser has a cookie from here on."""
    issuer, database = _issuer(request), request.app.state.database
    person = await issuer.welcome(await issuer.claims(request), database)
    answer = RedirectResponse(request.session.pop(_NEXT, "/"), 302)
    await cookies.sign_in(person, answer, database, request.app.state.config.local)
    return answer


@router.delete("", operation_id="sign_out", status_code=204, responses=problems())
async def sign_out(request: Request, response: Response) -> None:
    """Sign this browser out."""
    await cookies.sign_out(request, response, request.app.state.database, request.app.state.config.local)


def _issuer(request: Request) -> Any:
    if request.app.state.issuer is None:
        raise Problem(404, "Not found", "Nobody signs in here: the profile has no api.oidc")
    return request.app.state.issuer


def _address(request: Request, route: str) -> str:
    """Return a route's address as browsers know it: behind a proxy, only the profile knows."""
    public: str | None = request.app.state.config.public_url
    path = request.app.url_path_for(route)
    return f"{public.rstrip('/')}{path}" if public else str(request.url_for(route))


def _path(to: str) -> str:
    """Return where to go after signing in; never to another site."""
    parts = urlsplit(to)
    if parts.scheme or parts.netloc or not to.startswith("/") or to.startswith(("//", "/\\")):
        raise Problem.field("next", "is a path of this page, such as /calls")
    return to
