"""Unit: a run, its report as JSON, page and table, two runs, exit codes; and a swap that is evaluated first."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from api import metrics
from cluster import gate as gates
from cluster import profile, swap
from cluster.evaluation import command, page, running, suite, swapping
from cluster.evaluation.checks import Seen
from cluster.evaluation.command import Wish
from cluster.evaluation.running import Target
from cluster.evaluation.suite import Case, Suite
from cluster.gate import Gate, Judgement
from cluster.profile import Profile
from serve.errors import ConfigError, Unavailable

pytestmark = pytest.mark.unit

EVIL = "<script>alert(1)</script> & more"


@pytest.fixture
def three(tmp_path: Path) -> Suite:
    cases = [
        {"name": "paris", "say": "What is the capital of France?", "expect": {"answer": {"contains": "Paris"}}},
        {"name": "lost", "say": "Are you there?", "expect": {"answer": {"min_words": 1}}},
        {"name": "long", "say": "Tell me more.", "expect": {"answer": {"min_words": 3}}},
        {"name": "mute", "say": "Say nothing."},
    ]
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump({"about": "For tests.", "cases": cases}))
    return suite.load(str(path))


def fake_model(answer: str) -> Target:
    async def ask(case: Case, spoken: Any) -> Seen:
        if case.name == "lost":
            raise Unavailable("it is away")
        return Seen(answer=answer, first_ms=120.0, models={"llm": "fake"})

    def unfit(case: Case) -> str:
        return "no rule on the answer" if case.name == "mute" else ""

    return Target("fake", "llm", ask, unfit, {"llm": "fake"})


async def ran(suite: Suite, answer: str, rounds: int = 1) -> dict[str, Any]:
    target = fake_model(answer)
    said: list[str] = []
    results = await running.run(suite, target, said.append, rounds=rounds)
    assert len(said) == 4 * rounds
    return running.report(suite, target, results, rounds=rounds, judge=None, seconds=72, command="parley eval")


async def test_a_run_goes_on_where_a_case_breaks_off_and_its_report_says_all(three: Suite) -> None:
    report = json.loads(json.dumps(await ran(three, "Paris it is", rounds=2)))
    assert report["counts"] == {"passed": 4, "failed": 0, "error": 2, "skipped": 2}
    assert report["measures"]["score"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert report["measures"]["answer_score"]["cases"] == 3
    states = {each["case"]: (each["status"], each["seen"]["note"]) for each in report["results"]}
    assert states["lost"] == ("error", "it is away")
    assert states["mute"] == ("skipped", "no rule on the answer")


async def test_a_report_is_read_again_and_compared(three: Suite, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(await ran(three, "Paris it is")))
    target = fake_model("No idea")
    results = await running.run(three, target, lambda _: None)
    told = running.against(old, three, target, results)
    assert (told["worse"], told["better"], told["target"]) == (["paris", "long"], [], "fake")
    other = three.model_copy(update={"name": "four"})
    with pytest.raises(ConfigError, match="is of three"):
        running.against(old, other, target, results)
    for text, said in (("{", "is not JSON"), ("[]", "is no report"), ('{"format": 1}', "cannot be read")):
        old.write_text(text)
        with pytest.raises(ConfigError, match=said):
            running.read(old)


class Page(HTMLParser):
    """Collects what a page loads, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {value}" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "script":
            self.loads.append("script")
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_page_needs_nothing_else_and_shows_words_as_words(three: Suite, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(await ran(three, "Paris it is")))
    target = fake_model(EVIL)
    results = await running.run(three, target, lambda _: None)
    report = await ran(three, EVIL)
    report["against"] = running.against(old, three, target, results)
    report["gate"] = ["score: 33.3%, at least 90.0% is wanted"]
    html = page.html(report)
    read = Page()
    read.feed(html)
    assert (read.loads, read.open) == ([], [])
    assert not re.search(r"url\(|@import|https?:", html)
    for text in (
        "three, straight at fake",
        "The gate is not kept",
        "1 min 12 s",
        "&lt;script&gt;",
        "it is away",
        "worse",
    ):
        assert text in html, text
    printed = io.StringIO()
    page.show(report, Console(file=printed, width=80))
    assert "answer score" in printed.getvalue()
    assert "worse  paris" in printed.getvalue()
    assert "gate   score: 33.3%" in printed.getvalue()


@pytest.mark.parametrize(
    ("answer", "gate", "code"),
    [("Paris it is", "{failed: 1}", None), ("Paris it is", "{measures: {score: {min: 0.9}}}", 1), ("", None, None)],
)
def test_the_gate_decides_the_exit_code_and_reports_are_written(
    three: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    answer: str, gate: str | None, code: int | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(command.status, "current", lambda: None)

    async def evaluated(up: Any, wish: Wish, loaded: Suite) -> dict[str, Any]:
        return await ran(loaded, answer)

    monkeypatch.setattr(command, "evaluate", evaluated)
    rules = tmp_path / "gate.yaml"
    rules.write_text(gate or "")
    wish = Wish(str(tmp_path / "three.yaml"), gate=rules if gate else None, out=tmp_path / "out")
    if code is None:
        command.run(wish, as_json=True)
    else:
        with pytest.raises(SystemExit) as ended:
            command.run(wish, as_json=True)
        assert ended.value.code == code
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == printed
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    assert bool(printed["gate"]) == (code == 1)
    kept = json.loads((tmp_path / "home" / "evaluations" / "scores.json").read_text())
    assert kept == [{"suite": "three", "target": "fake", "score": printed["measures"]["score"]["value"]}]


async def test_the_last_score_is_shown_as_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []
    monkeypatch.setattr(type(metrics.EVALUATION), "set", lambda _, value, **of: shown.append((value, of["target"])))
    path = tmp_path / "scores.json"
    await metrics.show_evaluations(path)
    path.write_text(json.dumps([{"suite": "basic", "target": "calls", "score": 0.8}]))
    await metrics.show_evaluations(path)
    assert shown == [(0.8, "calls")]


# A swap.


def gate(folder: Path, text: str) -> Gate:
    path = folder / "gate.yaml"
    path.write_text(text)
    return gates.read(path)


async def test_a_gate_holds_scores_against_each_other_and_a_least_one(three: Suite, tmp_path: Path) -> None:
    good = await running.run(three, fake_model("Paris it is"), lambda _: None)
    bad = await running.run(three, fake_model("No idea"), lambda _: None)
    rules = gate(tmp_path, "evaluation: {suite: three.yaml, loss: 0.1}")
    swapping.check(rules)
    assert swapping.judge(rules, good, good).outcome == "promote"
    assert swapping.judge(rules, bad, good).outcome == "promote"
    lost = swapping.judge(rules, good, bad)
    assert lost.outcome == "roll back"
    assert lost.why.startswith("evaluation_score: 66.7% before, 0.0% now (worse by")
    least = gate(tmp_path, "evaluation: {suite: three.yaml, loss: null, min_score: 0.9}")
    assert swapping.judge(least, bad, good).why == "evaluation score 66.7% of 3 cases, 90% is wanted"
    with pytest.raises(ConfigError, match=r"other.yaml: cannot be read"):
        swapping.check(gate(tmp_path, "evaluation: {suite: other.yaml}"))
    with pytest.raises(ConfigError, match=r"evaluation.loss"):
        gate(tmp_path, "evaluation: {loss: 2}")


async def test_an_evaluation_is_never_left_out_in_silence(tmp_path: Path) -> None:
    now = profile.load("local")
    other = now.model(now.routes.model("llm")).model_copy(update={"name": "llm-b"})
    rules = gate(tmp_path, "evaluation: {suite: basic}")
    asked = swap.ask(now, "llm", "llm-b", [other], 0.1, rules, False)

    async def take(profile: Profile, why: str) -> None:
        raise AssertionError("nothing is to be changed")

    source: Any = None
    with pytest.raises(ConfigError, match="asks for an evaluation"):
        await swap.Swap(now, asked, take, source, print).run()


@pytest.mark.parametrize("outcome", ["promote", "roll back"])
async def test_the_new_model_is_evaluated_before_it_takes_a_call(outcome: Any) -> None:
    running_now = profile.load("local")
    old = running_now.routes.model("llm")
    other = running_now.model(old).model_copy(update={"name": "llm-b"})
    rules = Gate(min_calls=1, min_turns=1, max_minutes=0.001)
    asked = swap.ask(running_now, "llm", "llm-b", [other], 0.1, rules, False)
    put: list[Profile] = []

    async def take(profile: Profile, why: str) -> None:
        put.append(profile)

    async def examine(asked: swap.Asked, loaded: Profile) -> Judgement:
        assert put == [loaded]
        assert "llm-b" in {model.name for model in loaded.models}
        assert loaded.routes == running_now.routes
        return Judgement(outcome, "the evaluation says so")

    class NoTurns:
        async def since(self, at: float, role: Any) -> list[Any]:
            return []

    tell: Callable[[str], None] = lambda _: None  # noqa: E731
    ended = await swap.Swap(running_now, asked, take, NoTurns(), tell, poll=0.01, examine=examine).run()
    assert not ended.promoted
    assert put[-1] == running_now
    if outcome == "roll back":
        assert (len(put), ended.why) == (2, "the evaluation says so")
    else:
        assert put[1].routes.llm.weights == {"llm-b": 0.1}
    assert ended.json()["steps"][0]["share"] == 0.0
