"""Every route against its own description: whatever is sent, no answer is a server's error, and each is documented.

`make schema` sends much more.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from typing import Any, cast

import hypothesis
import hypothesis.errors
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from api.access.scopes import SCOPES
from api.openapi import TAGS
from serve.settings import settings
from tests.contract.openapi_server import running

pytestmark = [pytest.mark.contract, pytest.mark.timeout(3600)]

# Their types are known in part only.
_openapi: Any = openapi_checks
CHECKS: list[Any] = [
    cast(Any, checks).not_a_server_error,
    _openapi.status_code_conformance,
    _openapi.content_type_conformance,
    _openapi.response_schema_conformance,
]

EXAMPLES = "PARLEY_SCHEMA_EXAMPLES"
"""Environment variable: how many of each route, and no fixed seed; `make schema` sets it."""


def chosen(**more: Any) -> hypothesis.settings:
    """Return the settings of a short run that is the same each time, or of a long one."""
    examples = os.environ.get(EXAMPLES)
    return hypothesis.settings(
        max_examples=int(examples or 5),
        derandomize=not examples,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[*cast(Any, hypothesis.HealthCheck)],
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        **more,
    )


OPENAI = {
    *("ChatCompletionRequest", "Message", "Model", "ModelList", "ResponseFormat", "SpeechCreateRequest"),
    *("StreamOptions", "Tool"),
}
"""Shapes that OpenAI describes."""

Server = tuple[Any, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVEKIT_API_KEY", "key")
        patch.setenv("LIVEKIT_API_SECRET", "a-secret-that-is-long-enough-for-hs256")
        patch.setenv("PARLEY_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        with running(tmp_path_factory.mktemp("schema")) as (app, url):
            loaded = schemathesis.openapi.from_dict(app.openapi())
            loaded.config.update(base_url=url)
            yield loaded, url
    settings.cache_clear()


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return server[0].raw_schema


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


WHO = {
    "all rights": {"x-test-tenant": "ten_default"},
    "hardly any rights": {"x-test-tenant": "ten_other", "x-test-scopes": "tenant:read"},
    "nobody": {},
    "a wrong key": {"authorization": "Bearer parley_nothing"},
}
"""Each case is sent for all of them: making one takes longer than sending it."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_sent_the_answer_is_documented(server: Server, mode: GenerationMode) -> None:
    loaded, url = server
    faults: dict[str, str] = {}
    answers: Counter[int] = Counter()
    with requests.Session() as session:
        for found in loaded.get_all_operations():
            operation = found.ok()

            def send(case: Any) -> None:
                for who, headers in WHO.items():
                    if who == "all rights" and streams(case.operation.definition.raw):
                        continue  # it would not end
                    try:
                        answer = case.call_and_validate(
                            base_url=url, session=session, headers=headers, checks=CHECKS, timeout=20
                        )
                    except BaseExceptionGroup as fault:
                        fault.add_note(who)
                        raise
                    answers[answer.status_code] += 1

            try:
                chosen()(hypothesis.given(case=operation.as_strategy(mode))(send))()
            except hypothesis.errors.Unsatisfiable:
                continue  # what takes no input cannot be given a wrong one
            except (Exception, BaseExceptionGroup) as fault:  # every route is to be tried, and all said at once
                faults[operation.label] = said(fault)
    print(dict(sorted(answers.items())))
    assert not faults, "\n\n".join(f"{name}: {fault}" for name, fault in faults.items())
    assert {401, 403} <= set(answers)
    assert answers[200] + answers[201] > 0 or mode is GenerationMode.NEGATIVE


def test_what_is_made_can_be_shown_changed_and_deleted(server: Server) -> None:
    loaded, url = server
    answers: Counter[str] = Counter()

    endless = [each["operationId"] for _, _, each in operations(loaded.raw_schema) if streams(each)]

    class Machine(loaded.exclude(operation_id=endless).as_state_machine()):
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": url, "headers": WHO["all rights"], "timeout": 20}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **_: Any) -> None:
            answers[f"{case.operation.label} {response.status_code}"] += 1
            case.validate_response(response, checks=CHECKS)

    Machine.run(settings=chosen(stateful_step_count=20))
    print(dict(sorted(answers.items())))
    assert len(answers) > 5, answers
    if EXAMPLES in os.environ:
        made = ("calls/{id}", "assistants/{id}", "keys/{key_id}", "webhooks/{webhook_id}")
        assert all(answers[f"GET /api/v1/{each} 200"] for each in made), answers


def test_operations_are_described_in_one_style(document: dict[str, Any]) -> None:
    faults: dict[str, list[str]] = defaultdict(list)
    ids: list[str] = []
    for method, path, operation in operations(document):
        here = faults[f"{method.upper()} {path}"]
        ids.append(operation.get("operationId", ""))
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*", ids[-1]):
            here.append(f"operation id {ids[-1]!r} is no snake_case name")
        summary = operation.get("summary", "")
        if not summary or summary.endswith(".") or summary[0] != summary[0].upper():
            here.append(f"summary {summary!r} is no sentence without a full stop")
        if len(operation.get("tags", ())) != 1 or operation["tags"][0] not in TAGS:
            here.append(f"tags {operation.get('tags')} are not one of {', '.join(TAGS)}")
        for need in operation.get("security", ()):
            for scopes in need.values():
                if unknown := set(scopes) - set(SCOPES):
                    here.append(f"there are no scopes {unknown}")
        for status, answer in operation["responses"].items():
            if not answer.get("description"):
                here.append(f"{status} has no description")
            problem = list(answer.get("content", ())) == ["application/problem+json"]
            if path.startswith("/api/") and int(status) >= 400 and not problem:
                here.append(f"{status} is no problem document")
        if operation.get("security") and not {"401", "403", "429", "503"} <= set(operation["responses"]):
            here.append("errors that every route may answer are missing")
    assert len(set(ids)) == len(ids), "an operation id stands twice"
    assert not any(faults.values()), {name: here for name, here in faults.items() if here}


def test_fields_have_examples_or_say_all_by_their_kind(document: dict[str, Any]) -> None:
    bare: list[str] = []
    for name, schema in document["components"]["schemas"].items():
        if name in OPENAI or name.endswith("Page") or "examples" in schema:
            continue
        for field, kind in schema.get("properties", {}).items():
            told = {"example", "examples", "default", "$ref", "items", "enum", "const", "format"} & set(kind)
            inner = [each for each in kind.get("anyOf", ()) if {"$ref", "enum", "items", "const", "format"} & set(each)]
            if not told and not inner and kind.get("type") != "boolean" and "description" not in kind:
                bare.append(f"{name}.{field}")
    assert not bare, f"neither example nor description: {bare}"


def test_references_lead_somewhere_and_webhooks_are_told(document: dict[str, Any]) -> None:
    known = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= set(known)
    assert set(document["webhooks"]) == {"call.started", "call.ended", "turn.completed", "file.ready"}
    assert set(document["components"]["securitySchemes"]) == {"key", "cookie"}


def streams(operation: dict[str, Any]) -> bool:
    """Return whether an answer goes on until the client leaves."""
    return "text/event-stream" in operation["responses"].get("200", {}).get("content", {})


def said(fault: BaseException) -> str:
    """Return what Schemathesis says, of one failure or several."""
    inner = getattr(fault, "exceptions", ()) or (fault,)
    notes = [note for note in getattr(fault, "__notes__", ()) if note in WHO]
    return "\n".join([*notes, *(f"{type(each).__name__}: {each}" for each in inner)])
