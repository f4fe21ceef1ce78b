"""docs/security.md names tests, routes, settings and a profile that are there."""

from __future__ import annotations

import re

import pytest
import yaml

from api.config import ApiConfig
from serve.settings import Settings
from tests.conftest import ROOT

pytestmark = pytest.mark.unit

PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_test_that_is_named_is_there() -> None:
    named = [each.strip() for group in re.findall(r"\[([a-z_/, ]+)\]", PAGE) for each in group.split(",")]
    assert len(set(named)) > 12
    missing = [
        each for each in named if not ((path := ROOT / "tests" / each).is_dir() or path.with_suffix(".py").is_file())
    ]
    assert missing == []


def test_the_profile_for_entra_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = ApiConfig.model_validate(yaml.safe_load(block)["api"])
    assert config.oidc is not None
    assert set(config.oidc.roles.values()) == {"owner", "engineer", "operator", "viewer"}
    assert not config.local


def test_every_secret_of_the_settings_has_its_way_to_be_changed() -> None:
    section = PAGE.split("## Changing keys")[1].split("\n## ")[0]
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    # Two are addresses with a password in them; providers' have a line together.
    ours = {name for name in secrets if not name.endswith("_url") and "azure" not in name and "openai" not in name}
    assert len(ours) == 6
    assert [name for name in ours if name.upper() not in section] == []
