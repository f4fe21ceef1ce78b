"""People sign in with an issuer of OpenID Connect; whatever is not right about its answer lets nobody in."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from pydantic import ValidationError
from sqlalchemy import select, update

from api.access.cookies import CookieDoorman
from api.access.oidc import OidcConfig
from api.access.principal import Principal
from api.db.tables import Person, SignIn
from api.db.types import now
from api.problems import Problem
from tests.unit.api.backend import backend
from tests.unit.api.fake_issuer import CLIENT, FakeIssuer, fake_issuer

pytestmark = pytest.mark.unit

ROLES = {"parley-owner": "owner", "parley-viewer": "viewer"}


@asynccontextmanager
async def signing_in(folder: Path, **oidc: Any) -> AsyncGenerator[tuple[FakeIssuer, httpx.AsyncClient, Any]]:
    """Yield an issuer, a browser, and the application."""
    async with fake_issuer() as issuer:
        config = {"issuer": issuer.url, "client_id": CLIENT, "roles": ROLES, **oidc}
        async with backend(folder, oidc=config) as app:
            app.state.doormen = [CookieDoorman(local=True)]
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
                yield issuer, browser, app


async def go(issuer: FakeIssuer, browser: httpx.AsyncClient, to: str = "/calls") -> httpx.Response:
    """Sign in as a person does."""
    there = await browser.get("/api/v1/sign-in/openid", params={"next": to})
    assert there.status_code == 302, there.text
    return await browser.get("/api/v1/sign-in/openid/back", params=issuer.agree(there.headers["location"]))


async def test_a_person_signs_in_is_known_and_signs_out(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (issuer, browser, app):
        back = await go(issuer, browser)
        assert (back.status_code, back.headers["location"]) == (302, "/calls")
        cookie = next(value for value in back.headers.get_list("set-cookie") if value.startswith("parley_session="))
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert issuer.asked[0]["code_verifier"]
        async with app.state.database.system() as session:
            person = (await session.scalars(select(Person))).one()
            assert (person.name, person.role, person.issuer) == ("Ada", "owner", issuer.url)
            assert cookie.split("=")[1].split(";")[0] not in (await session.scalars(select(SignIn.id))).all()
        out = await browser.delete("/api/v1/sign-in", headers={"sec-fetch-site": "same-origin"})
        assert out.status_code == 204
        async with app.state.database.system() as session:
            assert (await session.scalars(select(SignIn))).all() == []


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"iss": "https://somebody.else"}, 401),
        ({"aud": "another-application"}, 401),
        ({"exp": int(time.time()) - 3600}, 401),
        ({"nonce": "of another sign-in"}, 401),
        ({"roles": ["nothing-here"]}, 403),
        ({"roles": []}, 403),
    ],
)
async def test_a_token_that_is_not_right_lets_nobody_in(tmp_path: Path, claims: dict[str, Any], status: int) -> None:
    async with signing_in(tmp_path) as (issuer, browser, _):
        issuer.claims = claims
        back = await go(issuer, browser)
        assert back.status_code == status, back.text
        assert "parley_session" not in browser.cookies


async def test_keys_change_and_strangers_keys_do_not_count(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (issuer, browser, _):
        assert (await go(issuer, browser)).status_code == 302
        # The issuer signs with a new key, which it has published: it is fetched.
        issuer.signs = issuer.new_key("second")
        issuer.keys.append(issuer.signs)
        assert (await go(issuer, browser)).status_code == 302
        # One that it has not published, under a name that is known.
        issuer.signs = issuer.new_key("second")
        assert (await go(issuer, browser)).status_code == 401


async def test_an_answer_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (issuer, browser, _):
        back = await browser.get("/api/v1/sign-in/openid/back", params={"code": "stolen", "state": "made-up"})
        assert back.status_code == 401
        there = await browser.get("/api/v1/sign-in/openid")
        answer = issuer.agree(there.headers["location"])
        browser.cookies.clear()
        assert (await browser.get("/api/v1/sign-in/openid/back", params=answer)).status_code == 401


async def test_it_leads_to_no_other_site(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (_, browser, _app):
        for to in ("https://evil.example", "//evil.example", "/\\evil.example", "evil"):
            refused = await browser.get("/api/v1/sign-in/openid", params={"next": to})
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["field"] == "next"


async def test_a_page_elsewhere_cannot_use_the_cookie(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (issuer, browser, app):
        await go(issuer, browser)
        doorman = CookieDoorman(local=True)

        async def let_in(method: str, **headers: str) -> Principal | None:
            cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            shown = {"host": "parley.example", "cookie": cookies, **headers}
            raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in shown.items()]
            scope = {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw}
            return await doorman(Request(scope), app.state.database)

        for headers in ({"sec_fetch_site": "cross-site"}, {"origin": "http://evil.example"}, {}):
            with pytest.raises(Problem, match="another site"):
                await let_in("POST", **headers)
        for headers in ({"sec_fetch_site": "same-origin"}, {"origin": "https://parley.example"}):
            assert (found := await let_in("POST", **headers)) is not None
            assert (found.name, found.role) == ("Ada", "owner")
        assert await let_in("GET") is not None
        async with app.state.database.system() as session:
            await session.execute(update(SignIn).values(expires_at=now()))
            await session.commit()
        with pytest.raises(Problem, match="signed out"):
            await let_in("GET")


async def test_disabled_people_are_out(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (issuer, browser, app):
        await go(issuer, browser)
        async with app.state.database.system() as session:
            await session.execute(update(Person).values(disabled_at=now()))
            await session.commit()
        again = await go(issuer, browser)
        assert again.status_code == 403


async def test_people_come_to_their_tenant_or_to_none(tmp_path: Path) -> None:
    tenants = {"tenant_claim": "tid", "tenants": {"directory-7": "ten_other"}}
    async with signing_in(tmp_path, **tenants) as (issuer, browser, app):
        assert (await go(issuer, browser)).status_code == 403
        issuer.claims = {"tid": "directory-7"}
        assert (await go(issuer, browser)).status_code == 302
        async with app.state.database.system() as session:
            assert (await session.scalars(select(Person.tenant_id))).one() == "ten_other"


async def test_an_issuer_that_is_away_or_is_another_is_told_of(tmp_path: Path) -> None:
    async with signing_in(tmp_path, issuer="http://127.0.0.1:9") as (_, browser, _app):
        away = await browser.get("/api/v1/sign-in/openid")
        assert (away.status_code, away.headers["retry-after"]) == (503, "5")
    async with signing_in(tmp_path / "other") as (issuer, browser, _app):
        issuer.url = "https://somebody.else"
        assert (await browser.get("/api/v1/sign-in/openid")).status_code == 503


def test_the_profile_is_checked() -> None:
    with pytest.raises(ValidationError, match="https"):
        OidcConfig(issuer="http://issuer.example", client_id="x", default_role="viewer")
    with pytest.raises(ValidationError, match="nobody would be let in"):
        OidcConfig(issuer="https://issuer.example", client_id="x")
