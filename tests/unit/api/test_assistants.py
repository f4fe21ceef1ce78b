"""Assistants over the API: versions, names, what they may reach, and what agents are told of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api import directory
from api.db import session_of
from api.openai.catalog import CatalogModel
from api.staff import choose
from serve.config import Route, Routes
from tests.unit.api.backend import backend, client

pytestmark = pytest.mark.unit

MCP = "https://tools.example.com/mcp"
RULES = {"mcp": [MCP], "people": ["tel:+49301"], "tools": ["end_call", "hand_over", "transfer_to_person"]}
URL = "/api/v1/assistants"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[FastAPI]:
    async with backend(tmp_path, assistants=RULES) as made:
        profile = {"default": {}, "clerk": {"description": "Sells.", "mcp": [{"url": "http://inside/mcp"}]}}
        made.state.staff.update(profile, ["end_call", "hand_over", "transfer_to_person", "secret_tool"])
        models = [CatalogModel(name=f"{role}-one", role=role, engine=f"fake-{role}") for role in ("stt", "llm", "tts")]
        routes = {role: Route(default=f"{role}-one") for role in ("stt", "llm", "tts")}
        made.state.catalog.update(models, Routes.model_validate(routes))
        yield made


@pytest.fixture
async def http(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(app) as opened:
        yield opened


async def made(http: httpx.AsyncClient, name: str = "Order desk", **definition: Any) -> httpx.Response:
    return await http.post(URL, json={"name": name, "definition": {"greeting": "Hello.", **definition}})


async def test_each_change_is_a_version_and_an_old_one_comes_back_as_a_new_one(http: httpx.AsyncClient) -> None:
    first = await made(http, models={"llm": "llm-one"})
    assert first.status_code == 201, first.text
    about = first.json()
    assert (about["version"], about["source"], about["ref"]) == (1, "database", f"{about['id']}@1")
    at = f"{URL}/{about['id']}"
    read = await http.get(at)
    assert read.headers["etag"] == first.headers["etag"]
    change = {"name": "Desk", "definition": {"greeting": "Good day."}}
    assert (await http.put(at, json=change)).status_code == 428
    second = await http.put(at, json=change, headers={"if-match": read.headers["etag"]})
    assert second.status_code == 200, second.text
    assert (second.json()["version"], second.json()["name"]) == (2, "Desk")
    late = await http.put(at, json=change, headers={"if-match": read.headers["etag"]})
    assert late.status_code == 412
    same = await http.put(at, json=change, headers={"if-match": second.headers["etag"]})
    assert same.json()["version"] == 2, "a definition that is what it was makes no version"
    back = await http.post(f"{at}/versions/1/restore", headers={"if-match": same.headers["etag"]})
    assert back.status_code == 201, back.text
    assert back.json()["version"] == 3
    assert back.json()["definition"]["greeting"] == "Hello."
    pages = await http.get(f"{at}/versions", params={"limit": 2})
    assert [each["number"] for each in pages.json()["items"]] == [3, 2]
    rest = await http.get(f"{at}/versions", params={"limit": 2, "after": pages.json()["next"]})
    assert [each["number"] for each in rest.json()["items"]] == [1]
    assert (await http.get(f"{at}/versions/2")).json()["definition"]["greeting"] == "Good day."
    assert (await http.get(f"{at}/versions/4")).status_code == 404


async def test_of_two_who_change_at_once_one_is_told(http: httpx.AsyncClient) -> None:
    about = await made(http)
    at, tag = f"{URL}/{about.json()['id']}", {"if-match": about.headers["etag"]}
    bodies = [{"name": "Order desk", "definition": {"greeting": f"Hello {number}."}} for number in range(4)]
    answers = await asyncio.gather(*(http.put(at, json=body, headers=tag) for body in bodies))
    assert sorted(each.status_code for each in answers) == [200, 412, 412, 412]
    assert (await http.get(at)).json()["version"] == 2


async def test_the_profiles_are_listed_first_and_read_only(http: httpx.AsyncClient) -> None:
    for number in range(3):
        assert (await made(http, f"Desk {number}")).status_code == 201
    seen, after = list[str](), None
    for _ in range(5):
        page = (await http.get(URL, params={"limit": 1, **({"after": after} if after else {})})).json()
        seen += [each["name"] for each in page["items"]]
        after = page["next"]
    assert seen == ["default", "clerk", "Desk 2", "Desk 1", "Desk 0"]
    assert after is None
    clerk = await http.get(f"{URL}/clerk")
    assert (clerk.json()["source"], clerk.json()["description"]) == ("profile", "Sells.")
    assert "inside" not in clerk.text, "addresses of the operator's are not shown"
    body: dict[str, Any] = {"name": "clerk", "definition": {}}
    assert (await http.put(f"{URL}/clerk", json=body, headers={"if-match": "*"})).status_code == 409
    assert (await http.delete(f"{URL}/clerk")).status_code == 409
    assert (await made(http, "clerk")).status_code == 409
    assert (await made(http, "Desk 1")).status_code == 409, "a name is taken once"
    assert (await http.get(URL, params={"after": "nonsense"})).status_code == 422


async def test_who_is_deleted_gets_no_new_call_and_keeps_the_ones_it_has(app: FastAPI, http: httpx.AsyncClient) -> None:
    about = (await made(http)).json()
    assert (await http.delete(f"{URL}/{about['id']}")).status_code == 204
    assert (await http.get(f"{URL}/{about['id']}")).status_code == 404
    assert (await http.delete(f"{URL}/{about['id']}")).status_code == 404
    async with session_of(app.state.database, "ten_default") as session:
        assert await choose(session, app.state.staff, about["id"]) is None
        assert await choose(session, app.state.staff, about["ref"]) is None
    goes_on = await directory.assistant(app.state.database, about["ref"], "")
    assert goes_on is not None
    assert goes_on["definition"]["greeting"] == "Hello."
    assert await directory.assistant(app.state.database, "Order desk", "") is None
    assert (await made(http)).status_code == 201, "its name is free again"


@pytest.mark.parametrize(
    ("definition", "field", "word"),
    [
        ({"models": {"llm": "llm-two"}}, "definition.models.llm", "the choices are llm-one"),
        ({"models": {"llm": "stt-one"}}, "definition.models.llm", "the choices are llm-one"),
        ({"tools": ["end_cal"]}, "definition.tools.0", "did you mean end_call?"),
        ({"tools": ["secret_tool"]}, "definition.tools.0", "the choices are end_call"),
        ({"tools": ["transfer_to_person"]}, "definition.tools.0", "set person"),
        ({"mcp": [{"url": "http://169.254.169.254/"}]}, "definition.mcp.0.url", MCP),
        ({"mcp": [{"url": MCP, "headers": {"A": "DATABASE_URL"}}]}, "definition.mcp.0.headers", "environment"),
        ({"person": "tel:+1900"}, "definition.person", "tel:+49301"),
        ({"numbers": ["+49"]}, "definition.numbers", "SIP dispatch rule"),
        ({"instructions": "x" * 50_000}, "definition", "bytes"),
        ({"greting": "Hi"}, "definition.greting", ""),
        ({"max_tokens": 0}, "definition.max_tokens", ""),
    ],
)
async def test_what_an_assistant_may_not_be_is_refused_by_field(
    http: httpx.AsyncClient, definition: dict[str, Any], field: str, word: str
) -> None:
    answer = await made(http, **definition)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert word in answer.json()["detail"]


async def test_what_the_rules_allow_is_taken(http: httpx.AsyncClient) -> None:
    answer = await made(http, mcp=[{"url": MCP}], person="tel:+49301", tools=["transfer_to_person"])
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("name", ["", " ", "asst_1", "a/b", "x" * 61, "a\nb", "<b>"])
async def test_names_are_plain(http: httpx.AsyncClient, name: str) -> None:
    assert (await made(http, name)).status_code in (409, 422)


async def test_agents_are_told_who_answers_in_the_tenant_alone(app: FastAPI, http: httpx.AsyncClient) -> None:
    about = (await made(http, tools=["hand_over"])).json()
    other = (await made(http, "Kitchen", description="Cooks.")).json()
    database = app.state.database
    for asked in (about["ref"], about["id"], "Order desk"):
        told = await directory.assistant(database, asked, "ten_default")
        assert told is not None
        assert (told["ref"], told["name"]) == (about["ref"], "Order desk")
        assert told["others"] == [{"name": "Kitchen", "description": "Cooks.", "ref": other["ref"]}]
        assert await directory.assistant(database, asked, "ten_other") is None
    for asked in (f"{about['id']}@2", "asst_nobody", "Nobody", "", "x" * 500):
        assert await directory.assistant(database, asked, "") is None
    async with client(app, "ten_other") as stranger:
        at = f"{URL}/{about['id']}"
        assert [each["source"] for each in (await stranger.get(URL)).json()["items"]] == ["profile", "profile"]
        for method, path in (("GET", at), ("DELETE", at), ("GET", f"{at}/versions"), ("GET", f"{at}/versions/1")):
            assert (await stranger.request(method, path)).status_code == 404
        body: dict[str, Any] = {"name": "Mine", "definition": {}}
        assert (await stranger.put(at, json=body, headers={"if-match": "*"})).status_code == 404
    async with session_of(database, "ten_default") as session:
        chosen = await choose(session, app.state.staff, "Order desk")
        assert chosen is not None
        assert chosen.ref == about["ref"]
        named = await choose(session, app.state.staff, "clerk")
        assert named is not None
        assert named.ref == "clerk"
