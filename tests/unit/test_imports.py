"""Imports point one way (docs/architecture.md): the picture of the parts, held by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PACKAGES = ("serve", "agent", "api", "cluster")
FROM_SERVE = {
    f"serve.{name}"
    for name in (
        "client",
        "contracts",
        "errors",
        "config",
        "settings",
        *("assistant", "records", "instruments", "tracing", "logs"),
    )
}
"""The last five are what the call plane and the backend have in common."""

BASE = {
    f"serve.{name}"
    for name in (
        *("contracts", "errors", "config", "settings", "audio", "worker", "fakes", "hub"),
        *("providers", "circuit", "plugins", "openai_client", "azure_speech", "work"),
    )
}


def imports(path: Path) -> set[str]:
    """Return the dotted names of Parley's modules that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if is_module(name) else node.module for name in inside}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def files(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "node_modules" not in path.parts)


@pytest.mark.parametrize("package", ["agent", "api"])
def test_call_plane_and_backend_see_only_the_models_client(package: str) -> None:
    for path in files(package):
        allowed = {name for name in imports(path) if name.split(".")[0] == package} | FROM_SERVE
        assert imports(path) <= allowed, f"{path.relative_to(ROOT)} reaches past serve's client"


def test_nothing_imports_the_composition_root() -> None:
    for package in ("serve", "agent", "api"):
        for path in files(package):
            assert not any(name.startswith("cluster") for name in imports(path)), path.relative_to(ROOT)


def test_model_plane_stands_alone() -> None:
    for path in files("serve"):
        assert all(name.startswith("serve") for name in imports(path)), path.relative_to(ROOT)


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
def test_engines_see_contracts_and_no_shell(role: str) -> None:
    for path in files(f"serve/{role}"):
        allowed = BASE | {name for name in imports(path) if name.startswith(f"serve.{role}")}
        assert imports(path) <= allowed, path.relative_to(ROOT)
        assert not re.search(r"^\s*(from|import) ray\b", path.read_text(), re.MULTILINE), path.relative_to(ROOT)


def test_contracts_and_errors_depend_on_nothing_of_ours() -> None:
    assert imports(ROOT / "serve/contracts.py") == {"serve.errors"}
    assert imports(ROOT / "serve/errors.py") == set()
