"""Unit: a profile that is wrong says where and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import profile
from serve.errors import ConfigError

pytestmark = pytest.mark.unit

GOOD = """\
models:
  - name: ears
    engine: fake-stt
  - name: mind
    engine: fake-llm
  - name: mouth
    engine: fake-tts
routes:
  stt: ears
  llm: mind
  tts: mouth
api:
  port: 8100
"""


def load(tmp_path: Path, text: str, *overrides: str) -> profile.Profile:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    return profile.load(str(path), overrides)


def problem(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, *overrides)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_a_good_profile_is_taken(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).api.port == 8100


@pytest.mark.parametrize("name", profile.names())
def test_packaged_profiles_have_their_routes(name: str) -> None:
    loaded = profile.load(name)
    assert loaded.model(loaded.routes.model("llm")).engine


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("engine: fake-llm", "engine: fake-lm", ["profile.yaml:5: models[1].engine: 'fake-lm'", "mean fake-llm?"]),
        ("port: 8100", "prt: 8100", ["profile.yaml:13: api.prt: unknown key", "the choices are", "did you mean port?"]),
        ("port: 8100", "port: many", ["profile.yaml:13: api.port:", "'many'"]),
        ("stt: ears", "stt: eras", ["profile.yaml:9: routes.stt: no model is named 'eras'", "did you mean ears?"]),
        ("llm: mind", "llm: ears", ["profile.yaml:10: routes.llm: 'ears' is a stt model"]),
        ("name: mind", "name: ears", ["profile.yaml:4: models[1].name: 'ears' is there twice"]),
        ("engine: fake-stt", "engine: fake-stt\n    options: {colour: 1}", [":4: models[0].options:", "colour"]),
        ("  tts: mouth\n", "", ["profile.yaml:8: routes.tts: is missing"]),
        ("  port: 8100", "  port: 8100\n  port: 8200", ["profile.yaml:14: api.port: the key is there twice"]),
        ("models:", "models: [", ["profile.yaml:", "not valid YAML"]),
    ],
)  # fmt: skip
def test_an_error_names_file_line_key_and_choices(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    message = problem(tmp_path, GOOD.replace(old, new, 1))
    for part in said:
        assert part in message


def test_all_errors_at_once(tmp_path: Path) -> None:
    message = problem(tmp_path, GOOD.replace("port: 8100", "prt: 1").replace("llm: mind", "llm: 'No Name'"))
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    assert "profile.yaml" in problem(tmp_path, text)


def test_an_unknown_name_lists_the_profiles() -> None:
    with pytest.raises(ConfigError, match=r"the choices are .*local.*did you mean local\?"):
        profile.load("locl")


def test_set_overrides_keys_lists_and_absent_sections(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, "api.port=9000", "models[0].max_ongoing=3", "ray.dashboard_port=9265")
    assert (loaded.api.port, loaded.models[0].max_ongoing, loaded.ray.dashboard_port) == (9000, 3, 9265)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("api.port", "write it as key=value"),
        ("models[7].name=x", "an index from [0] to [2]"),
        ("api.port.x=1", "port holds a value, no keys"),
        ("api.prt=1", "api.prt: unknown key"),
    ],
)
def test_a_wrong_override_is_explained(tmp_path: Path, override: str, said: str) -> None:
    assert said in problem(tmp_path, GOOD, override)


def extending(tmp_path: Path, text: str, base: str = GOOD) -> str:
    (tmp_path / "base.yaml").write_text(base)
    return f"extends: base.yaml\n{text}"


def test_a_profile_extends_another(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("routes:")].replace("mind", "other")
    loaded = load(tmp_path, extending(tmp_path, f"{text}routes: {{llm: other}}\nray: {{num_cpus: 3}}\n"))
    assert [model.name for model in loaded.models] == ["ears", "other", "mouth"], "lists are replaced"
    assert (loaded.routes.model("stt"), loaded.routes.model("llm")) == ("ears", "other"), "mappings are merged"
    assert (loaded.api.port, loaded.ray.num_cpus) == (8100, 3)


def test_a_route_of_the_base_is_replaced_or_completed(tmp_path: Path) -> None:
    base = GOOD.replace("llm: mind", "llm: {default: mind, patience: 2}")
    route = load(tmp_path, extending(tmp_path, "routes: {llm: {patience: 3}}\n", base)).routes.llm
    assert (route.default, route.patience) == ("mind", 3)
    assert load(tmp_path, extending(tmp_path, "routes: {llm: mind}\n", base)).routes.llm.patience == 4


@pytest.mark.parametrize(
    ("text", "base", "said"),
    [
        ("api: {prt: 1}\n", GOOD, "profile.yaml:2: api.prt: unknown key"),
        ("api: {port: 1}\n", GOOD.replace("port: 8100", "prt: 8100"), "base.yaml:13: api.prt: unknown key"),
        ("routes: {stt: mind}\n", GOOD, "profile.yaml:2: routes.stt: 'mind' is a llm model"),
        ("routes: {stt: ears}\n", GOOD.replace("llm: mind", "llm: ears"), "base.yaml:10: routes.llm: 'ears' is a stt"),
        ("models:\n  - {name: mind, engine: lost}\n", GOOD, "profile.yaml:3: models[0].engine: 'lost'"),
        ("", "extends: profile.yaml\n", "profile.yaml:1: extends: 'base.yaml' leads back"),
        ("", "extends: locl\nroutes: {}\n", "base.yaml:1: extends:"),
        ("", "extends: [a]\n", "base.yaml:1: extends: names one profile"),
        ("colour: red\n", GOOD, "extends"),
    ],
)  # fmt: skip
def test_errors_name_the_file_that_says_it(tmp_path: Path, text: str, base: str, said: str) -> None:
    assert said in problem(tmp_path, extending(tmp_path, text, base))


def test_packaged_profiles_can_be_extended_from_anywhere(tmp_path: Path) -> None:
    assert load(tmp_path, "extends: local\napi: {port: 9123}\n").api.port == 9123


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("engine: fake-llm", "engine: llamacpp\n    options: {path: 'hf://lost'}", ":6: models[1].options: 'hf://lost'"),
        ("engine: fake-tts", "engine: fake-tts\n    batch: {size: 4}", ":8: models[2].batch: 'fake-tts' takes no"),
        ("engine: fake-stt", "engine: pocketsphinx\n    batch: {size: 4}", ":4: models[0].batch: 'pocketsphinx' takes"),
    ],
)  # fmt: skip
def test_what_is_wrong_wherever_it_runs(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in problem(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fake-llm", "openai-llm", ":5: models[1].engine: 'openai-llm' needs a key: set OPENAI_API_KEY"),
        ("fake-llm", "openai-llm\n    options: {key_env: MINE}", "'openai-llm' needs a key: set MINE"),
        ("fake-llm", "llamacpp\n    options: {path: /no/such.gguf}", ":6: models[1].options: there is no /no/such"),
        ("fake-stt", "azure-speech-stt", "needs the option 'region': it has no default"),
        ("fake-stt", "fake-stt\n    resources: {gpus: 0.5}", "ray.num_gpus: the models take 0.5 of GPUs"),
        ("port: 8100", "port: 8100\nray: {num_gpus: 1000}", ":14: ray.num_gpus: 1000 GPUs, and this machine has"),
    ],
)  # fmt: skip
def test_what_this_machine_lacks_is_said_where_it_shall_run(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = GOOD.replace(old, new)
    load(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        profile.load(str(tmp_path / "profile.yaml"), here=True)
    assert said in str(error.value)


def test_a_missing_extra_is_said_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import needs

    load(tmp_path, GOOD.replace("fake-tts", "piper"))
    monkeypatch.setattr(needs, "not_installed", lambda extra: ("piper-tts",) if extra else ())  # pyright: ignore
    with pytest.raises(ConfigError, match=r":7: models\[2\]\.engine: piper-tts is not installed: `uv pip install"):
        profile.load(str(tmp_path / "profile.yaml"), here=True)


def test_a_compatible_server_may_want_no_key(tmp_path: Path) -> None:
    server = "openai-llm\n    options: {base_url: 'http://127.0.0.1:1/v1', model: m}"
    (tmp_path / "profile.yaml").write_text(GOOD.replace("fake-llm", server))
    profile.load(str(tmp_path / "profile.yaml"), here=True)


STAFF = """
agent:
  assistant: {tools: [end_call], models: {llm: mind}}
  assistants:
    sales: {greeting: Sales., numbers: ["+491"], tools: [hand_over, end_call]}
"""


def test_assistants_have_what_the_default_has(tmp_path: Path) -> None:
    sales = load(tmp_path, GOOD + STAFF).agent.assistants["sales"]
    assert (sales.greeting, sales.models) == ("Sales.", {"llm": "mind"})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("llm: mind}}", "llm: ears}}", ["agent.assistant.models.llm: no llm model is named 'ears'"]),
        ("Sales.,", "Sales., models: {stt: mind},", ["sales.models.stt: no stt model is named 'mind'"]),
        ("tools: [end_call]", "tools: [end_cal]", ["agent.assistant.tools[0]: no tool is named", "mean end_call?"]),
        ("[hand_over,", "[hand_ober,", ["agent.assistants.sales.tools[0]:", "mean hand_over?"]),
        ("[hand_over,", "[transfer_to_person,", ["sales.tools[0]: transfer_to_person needs a number: set person"]),
        ("tools: [end_call]", "numbers: ['+491']", ["sales.numbers[0]: '+491' is answered by default already"]),
        ("greeting:", "greting:", ["agent.assistants.sales.greting: unknown key", "did you mean greeting?"]),
        ("sales:", "default:", ["an assistant cannot be named 'default'"]),
        ("Sales.,", "Sales., mcp: [{url: here}],", ["agent.assistants.sales.mcp[0].url:"]),
        ("Sales.,", "Sales., mcp: [{url: 'http://h/mcp', headers: {A: sk-123}}],", ["mcp[0].headers.A"]),
    ],
)  # fmt: skip
def test_a_wrong_assistant_is_explained(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    message = problem(tmp_path, GOOD + STAFF.replace(old, new, 1))
    for part in said:
        assert part in message
    assert len(message.splitlines()) == 1, "what others have from the default is said once"


def test_handing_over_needs_somebody(tmp_path: Path) -> None:
    text = "agent:\n  assistant: {tools: [hand_over]}\n"
    assert "hand_over needs another assistant" in problem(tmp_path, GOOD + text)


def test_a_key_of_an_mcp_server_is_missed_where_it_runs(tmp_path: Path) -> None:
    server = "agent:\n  assistant: {mcp: [{url: 'http://h/mcp', headers: {Authorization: NO_SUCH_KEY}}]}\n"
    load(tmp_path, GOOD + server)
    with pytest.raises(ConfigError, match=r"mcp\[0\]\.headers\.Authorization: needs a value: set NO_SUCH_KEY"):
        profile.load(str(tmp_path / "profile.yaml"), here=True)
