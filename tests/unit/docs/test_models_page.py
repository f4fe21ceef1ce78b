"""The engine that docs/models.md adds, added as the page says: it passes the suite that every engine passes."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serve import registry
from tests.contract import test_llm as suite

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CHECKS = [
    check
    for name, check in vars(suite).items()
    if name.startswith("test_") and list(inspect.signature(check).parameters) == ["llm"]
]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    source, line = (next(each for each in BLOCKS if word in each) for word in ("class Answers:", "register("))
    module = ModuleType("serve.llm.answers")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "docs/models.md", "exec"), module.__dict__)
    monkeypatch.setattr(registry, "_ENTRIES", dict(vars(registry)["_ENTRIES"]))
    exec(line, {"register": registry.register})
    return registry.create("answers", {})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_engine_of_the_page_passes_the_suite(engine: Any, check: Any) -> None:
    await check(engine)


def test_wrong_options_are_refused_with_the_choices(engine: Any) -> None:
    with pytest.raises(Exception, match="answers"):
        registry.create("answers", {"anwsers": {}})
