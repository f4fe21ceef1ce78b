"""People and the tenant itself: roles, the last owner, limits, and the log of who changed what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from api.access.scopes import ROLES, Scope
from api.db.tables import Person, SignIn, Tenant
from api.db.types import now
from tests.unit.api.backend import backend, client, warm

pytestmark = pytest.mark.unit


async def people(app: FastAPI, **roles: str) -> None:
    """Put people into the default tenant, with a browser each, and one owner into the other tenant."""
    async with app.state.database.system() as session:
        for name, role in roles.items():
            session.add(
                Person(id=f"per_{name}", tenant_id="ten_default", issuer="test", subject=name, name=name, role=role)
            )
            session.add(SignIn(id=name, tenant_id="ten_default", person_id=f"per_{name}", expires_at=now()))
        session.add(Person(id="per_x", tenant_id="ten_other", issuer="test", subject="x", name="x", role="owner"))
        await session.commit()


async def test_the_last_owner_stays(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        await people(app, ada="owner", bob="owner", cyd="viewer")
        assert (await http.patch("/api/v1/people/per_ada", json={"disabled": True})).status_code == 200
        for change in ({"disabled": True}, {"role": "engineer"}):
            answer = await http.patch("/api/v1/people/per_bob", json=change)
            assert (answer.status_code, answer.json()["title"]) == (409, "The last owner")
        assert (await http.get("/api/v1/people/per_bob")).json()["role"] == "owner"
        assert (await http.patch("/api/v1/people/per_cyd", json={"role": "owner"})).status_code == 200
        assert (await http.patch("/api/v1/people/per_bob", json={"role": "engineer"})).status_code == 200
        assert (await http.patch("/api/v1/people/per_ada", json={"disabled": False})).json()["disabled_at"] is None


async def test_two_owners_cannot_remove_each_other_at_once(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        await people(app, ada="owner", bob="owner")
        await warm(app)
        answers = await asyncio.gather(
            *(http.patch(f"/api/v1/people/per_{name}", json={"disabled": True}) for name in ("ada", "bob"))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_disabled_is_signed_out(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        await people(app, ada="owner", cyd="viewer")
        await http.patch("/api/v1/people/per_cyd", json={"disabled": True})
        async with app.state.database.system() as session:
            assert (await session.scalars(select(SignIn.id))).all() == ["ada"]


async def test_nobody_gives_or_takes_what_they_have_not(tmp_path: Path) -> None:
    may: set[Scope] = {*ROLES["engineer"], "people:read", "people:write"}
    async with backend(tmp_path) as app, client(app, scopes=may) as http:
        await people(app, ada="owner", bob="owner", cyd="viewer")
        assert (await http.patch("/api/v1/people/per_cyd", json={"role": "engineer"})).status_code == 200
        assert (await http.patch("/api/v1/people/per_cyd", json={"role": "owner"})).status_code == 403
        assert (await http.patch("/api/v1/people/per_bob", json={"role": "viewer"})).status_code == 403
    async with backend(tmp_path / "2") as app, client(app, scopes=ROLES["engineer"]) as http:
        assert (await http.patch("/api/v1/people/per_cyd", json={"role": "viewer"})).status_code == 403


async def test_people_are_listed_in_pages_and_within_the_tenant(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        await people(app, ada="owner", bob="viewer", cyd="viewer")
        seen: list[str] = []
        after = None
        while True:
            page = (await http.get("/api/v1/people", params={"limit": 2, **({"after": after} if after else {})})).json()
            seen += [each["name"] for each in page["items"]]
            if (after := page["next"]) is None:
                break
        assert sorted(seen) == ["ada", "bob", "cyd"]


async def test_a_tenant_is_changed_by_who_has_read_it(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        shown = await http.get("/api/v1/tenant")
        etag = shown.headers["etag"]
        assert shown.json()["limits"] == {"calls": 100, "minutes": None, "uploads": 8, "requests": 100}
        change: dict[str, Any] = {"name": "Ours", "keep_days": 30, "limits": {"calls": 5, "minutes": 100}}
        assert (await http.patch("/api/v1/tenant", json=change)).status_code == 428
        changed = await http.patch("/api/v1/tenant", json=change, headers={"if-match": etag})
        assert changed.status_code == 200, changed.text
        body = changed.json()
        assert (body["name"], body["keep_days"]) == ("Ours", 30)
        assert body["limits"] == {"calls": 5, "minutes": 100, "uploads": 8, "requests": 100}
        assert body["own_limits"] == {"calls": 5, "minutes": 100}
        lost = await http.patch("/api/v1/tenant", json={"name": "Theirs"}, headers={"if-match": etag})
        assert lost.status_code == 412
        now_is = lost.headers["etag"]
        assert now_is == changed.headers["etag"]
        back = {"limits": {"minutes": None}, "keep_days": None}
        body = (await http.patch("/api/v1/tenant", json=back, headers={"if-match": now_is})).json()
        assert (body["keep_days"], body["own_limits"]) == (None, {"calls": 5})


async def test_of_two_changes_at_once_one_is_lost_to_nobody(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        etag = (await http.get("/api/v1/tenant")).headers["etag"]
        await warm(app)
        answers = await asyncio.gather(
            *(http.patch("/api/v1/tenant", json={"name": name}, headers={"if-match": etag}) for name in "abc")
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412]


async def test_a_tenant_gives_itself_no_more_than_it_is_given(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        async with app.state.database.system() as session:
            row = await session.get(Tenant, "ten_default")
            row.allowed = {"calls": 10, "requests": 500}
            await session.commit()
        etag = (await http.get("/api/v1/tenant")).headers["etag"]
        for limits in ({"calls": 11}, {"uploads": 9}):
            answer = await http.patch("/api/v1/tenant", json={"limits": limits}, headers={"if-match": etag})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"limits.{next(iter(limits))}")
        good = {"limits": {"calls": 10, "requests": 400}}
        answer = await http.patch("/api/v1/tenant", json=good, headers={"if-match": etag})
        assert answer.json()["limits"] == {"calls": 10, "minutes": None, "uploads": 8, "requests": 400}


async def test_the_audit_log_is_filtered_and_read_in_pages(tmp_path: Path) -> None:
    async with backend(tmp_path, proxies=1) as app, client(app) as http:
        await people(app, ada="owner", cyd="viewer")
        from_far = {"x-forwarded-for": "6.6.6.6, 203.0.113.7"}
        for role in ("engineer", "operator", "viewer"):
            await http.patch("/api/v1/people/per_cyd", json={"role": role}, headers=from_far)
        etag = (await http.get("/api/v1/tenant")).headers["etag"]
        await http.patch("/api/v1/tenant", json={"name": "Ours"}, headers={"if-match": etag})
        first = (await http.get("/api/v1/audit", params={"limit": 3})).json()
        assert [each["action"] for each in first["items"]] == ["tenant.change", "person.change", "person.change"]
        assert first["items"][1]["detail"] == {"role": "viewer", "role_before": "operator"}
        assert first["items"][1]["address"] == "203.0.113.7", "what the client itself says is not believed"
        rest = (await http.get("/api/v1/audit", params={"limit": 3, "after": first["next"]})).json()
        assert [each["detail"]["role"] for each in rest["items"]] == ["engineer"]
        assert rest["next"] is None
        for query, count in (
            ({"action": "person.change"}, 3),
            ({"target": "per_cyd", "actor": "per_ten_default"}, 3),
            ({"actor": "per_nobody"}, 0),
            ({"until": first["items"][0]["created_at"]}, 3),
            ({"since": first["items"][0]["created_at"]}, 1),
        ):
            assert len((await http.get("/api/v1/audit", params=query)).json()["items"]) == count, query
        async with client(app, "ten_other") as other:
            assert (await other.get("/api/v1/audit")).json()["items"] == []


async def test_one_may_know_who_one_is(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app, "ten_other", scopes=["calls:read"]) as http:
        assert (await http.get("/api/v1/me")).json() == {
            "id": "per_ten_other",
            "kind": "person",
            "name": "Test",
            "role": "owner",
            "scopes": ["calls:read"],
            "tenant": {"id": "ten_other", "name": "Other"},
        }
