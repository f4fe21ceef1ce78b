"""Unit: suites say what is wrong in them; cases are judged by what was seen; all without audio, calls or models."""

from __future__ import annotations

import asyncio
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from pydantic import SecretStr

from cluster.evaluation import checks, judge, limits, measures, suite
from cluster.evaluation.checks import Result, Seen, Verdict
from cluster.evaluation.suite import Case, Noise
from cluster.evaluation.voicing import LEAD_SECONDS, joined, noisy, power_of_speech
from cluster.robot import RATE
from serve.errors import ConfigError
from serve.settings import settings

pytestmark = pytest.mark.unit


def case(**values: Any) -> Case:
    return Case.model_validate({"name": "a", "say": "What is the capital of France?", **values})


def one(result: Result) -> dict[str, bool | None]:
    return {check.what: check.ok for check in result.checks}


def written(folder: Path, *cases: dict[str, Any], **more: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"cases": list(cases), **more}))
    return path


# Suites.


def test_the_suite_that_comes_along_is_right_and_of_the_promised_size() -> None:
    loaded = suite.load("basic")
    assert suite.names() == ["basic"]
    assert 12 <= len(loaded.cases) <= 20
    assert {"noise", "over", "file", "before", "tools", "pauses"} <= {
        name for each in loaded.cases for name in each.model_fields_set
    }
    assert loaded.definitions(loaded.cases[-1])[0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"name": "a"}, "case a: set one of `say`, `audio` and `sound`"),
        ({"name": "a", "sound": "cough"}, "case a: `sound` goes with expect.answered: false"),
        ({"name": "a", "say": ["x", "y"]}, "case a: pauses: 2 parts have 1 pauses between them"),
        ({"name": "a", "say": "x", "noise": {"snr": "loud"}}, "case a: noise.snr: "),
        ({"name": "a", "say": "x", "expect": {"anser": {}}}, "case a: expect.anser: unknown key"),
        (
            {"name": "a", "say": "x", "expect": {"answer": {"matches": "("}}},
            "case a: expect.answer.matches: is no regular",
        ),
        ({"name": "a", "say": "x", "voice": "piper:amy"}, "case a: voice: "),
        ({"name": "a", "say": "x", "over": {"say": "y"}}, "case a: `over` and expect.interrupted need each other"),
        ({"name": "a", "say": "x", "over": {}, "expect": {"interrupted": True}}, "case a: over: set one of `say` and"),
        ({"name": "a", "say": "x", "tools": "lookup"}, "case a: tools: no tool is named 'lookup'; the suite has none"),
        ({"name": "a", "audio": "no.wav"}, "case a: audio: no.wav is not there, beside the suite"),
        ({"say": "x"}, "case 1: name: "),
    ],
)
def test_a_mistake_is_named_by_case_and_field(tmp_path: Path, broken: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        suite.load(str(written(tmp_path, broken)))
    assert said in str(error.value), error.value


def test_names_are_of_one_case_each_and_cases_can_be_picked(tmp_path: Path) -> None:
    twice = written(tmp_path, {"name": "a", "say": "x"}, {"name": "a", "say": "y"})
    with pytest.raises(ConfigError, match="case a: name: is there twice"):
        suite.load(str(twice))
    assert [each.name for each in suite.load("basic", ["week", "capital"]).cases] == ["capital", "week"]
    with pytest.raises(ConfigError, match="basic has no case nothing; it has hello"):
        suite.load("basic", ["nothing"])
    with pytest.raises(ConfigError, match="no suite is named 'basics'; there are basic"):
        suite.load("basics")


# What callers sound like.


@pytest.mark.parametrize("snr", [20.0, 5.0])
def test_noise_has_the_ratio_that_is_asked_for_and_is_the_same_each_time(snr: float) -> None:
    tone = (8000 * np.sin(np.arange(RATE) * 0.3)).astype(np.int16)
    speech = joined([tone, tone], [0.5])
    noise = Noise(kind="white", snr=snr)
    made = noisy(speech, noise, 3)
    lead = made[: int(LEAD_SECONDS * RATE)].astype(float)
    ratio = 10 * np.log10(power_of_speech(speech) / np.mean(lead**2))
    assert ratio == pytest.approx(snr, abs=0.3)
    assert len(made) == len(speech) + int(LEAD_SECONDS * RATE)
    assert np.array_equal(made, noisy(speech, noise, 3))
    assert not np.array_equal(made, noisy(speech, noise, 4))


# Judging.


def test_word_errors_forgive_case_marks_and_contractions_and_take_the_nearest() -> None:
    assert checks.word_errors(["What's the time?"], "what is the time") == (0, 4)
    assert checks.word_errors(["The cat sat."], "the bat") == (2, 3)
    assert checks.word_errors(["The cat sat."], "") == (3, 3)
    assert checks.word_errors(["room 12", "room twelve"], "room twelve") == (0, 2)


def test_a_turn_over_calls_is_judged_by_each_expectation() -> None:
    wanted = case(
        expect={
            "heard": {"max_wer": 0.2, "contains": ["France"]},
            "answer": {"contains": "Paris", "lacks": "London", "max_words": 3},
            "within": 1.0,
            "judge": "It is polite.",
        }
    )
    seen = Seen(
        "what is the capital of france", "It is Paris of course", answered=True, cut_in=False, voice_to_voice_ms=1200
    )
    result = checks.result(wanted, 1, seen, None)
    assert one(result) == {
        "answered": True,
        "heard to the end": True,
        "within 1 s": False,
        "word error rate at most 20%": True,
        "hears “France”": True,
        "contains “Paris”": True,
        "lacks “London”": True,
        "at most 3 words": False,
        "It is polite.": None,
    }
    assert (result.status, result.score, result.errors, result.words) == ("failed", 6 / 8, 0, 6)
    assert checks.Check("judge", "It is polite.", None, "no judge is configured") in result.checks
    seen.verdict = Verdict(False, "It is curt.")
    assert checks.result(wanted, 1, seen, None).score == 6 / 9


def test_words_are_whole_ones_and_silence_keeps_no_rule() -> None:
    wanted = case(expect={"answer": {"lacks": "no"}})
    assert checks.result(wanted, 1, Seen(answer="I know.", answered=True), None).status == "passed"
    assert checks.result(wanted, 1, Seen(answer="", answered=True), None).status == "failed"


@pytest.mark.parametrize(
    ("tools", "status", "score"),
    [
        ([("get_weather", {"city": "berlin", "days": 1})], "passed", 1.0),
        ([("get_weather", {"city": "Rome"})], "failed", 0.5),
        ([("get_weather", None)], "passed", 1.0),
        ([], "failed", 0.0),
    ],
)
def test_a_tool_is_known_by_name_and_arguments_where_they_are_told(tools: list[Any], status: str, score: float) -> None:
    wanted = case(expect={"tool": {"name": "get_weather", "arguments": {"city": "Berlin"}}})
    result = checks.result(wanted, 1, Seen(answer="", tools=tools), "llm")
    assert (result.status, result.score) == (status, score)


def test_talking_over_an_answer() -> None:
    goes_on = case(over={"say": "Yeah."}, expect={"interrupted": False})
    right = checks.result(goes_on, 1, Seen(heard="x", answer="y", answered=True, interrupted=False), None)
    assert (right.status, right.goes_on, right.due) == ("passed", True, False)
    assert checks.result(goes_on, 1, Seen(answered=True, interrupted=True), None).status == "failed"
    void = checks.result(goes_on, 1, Seen(answered=True, note="over too soon"), None)
    assert (void.status, void.seen.note) == ("skipped", "over too soon")
    silent = case(expect={"answered": False})
    assert checks.result(silent, 1, Seen(silent=True), None).status == "passed"
    assert checks.result(silent, 1, Seen(silent=False, heard="hm"), None).errors is None


def test_recognisers_and_voices_are_scored_by_their_words() -> None:
    heard = checks.result(
        case(expect={"answer": {"contains": "Paris"}}), 1, Seen(heard="what is the cattle of france"), "stt"
    )
    assert (heard.score, heard.checks) == (pytest.approx(5 / 6), ())
    spoken = checks.result(case(), 1, Seen(answer="what is the capital of france"), "tts")
    assert (spoken.score, spoken.status) == (1.0, "passed")
    lost = checks.broken(case(), 1, "it is away", "stt")
    assert (lost.status, lost.score, lost.errors, lost.words) == ("error", 0.0, 6, 6)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('{"true": true, "why": "It says so."}', True),
        ('Sure!\n```json\n{"true": false, "why": "no"}\n```', False),
        ('{"true": "yes"}', None),
        ("It is true.", None),
        ("{broken} {}", None),
    ],
)
def test_a_judges_word_is_found_in_what_models_write(text: str, holds: bool | None) -> None:
    assert judge.verdict(text).holds is holds


class FakeJudge(BaseHTTPRequestHandler):
    """Speaks OpenAI's chat API: an answer with Paris in it is right."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append({**body, "path": self.path, "key": self.headers["authorization"]})
        holds = "Paris" in json.loads(body["messages"][1]["content"])["answered"]
        content = json.dumps({"true": holds, "why": "Because."})
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        answer = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "j", "choices": [message]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


async def test_a_judge_is_any_server_of_openais_chat_api(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), FakeJudge)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    known = settings().model_copy(
        update={
            "parley_judge_url": f"http://127.0.0.1:{server.server_port}/v1",
            "parley_judge_model": "wise",
            "parley_judge_key": SecretStr("marked"),
        }
    )
    monkeypatch.setattr(judge, "settings", lambda: known)
    asks = judge.configured(None, None)
    assert asks
    try:
        async with asks:
            assert await asks("It names the city.", "What city?", "Paris.") == Verdict(True, "Because.")
            assert (await asks("It names the city.", "What city?", "Rome.")).holds is False
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
    first = FakeJudge.asked[0]
    assert (first["path"], first["model"], first["key"], first["temperature"]) == (
        "/v1/chat/completions", "wise", "Bearer marked", 0,
    )  # fmt: skip
    monkeypatch.setattr(judge, "settings", lambda: known.model_copy(update={"parley_judge_model": None}))
    with pytest.raises(ConfigError, match="PARLEY_JUDGE_MODEL"):
        judge.configured(None, None)
    with pytest.raises(ConfigError, match="has no OpenAI API"):
        judge.configured("llm-b", None)


# Measures, two runs, limits.


def results(scores: list[float], *, wrong: int = 0, ms: float = 700.0) -> list[Result]:
    return [
        Result(f"c{number}", 1, "passed" if score == 1 else "failed", score, errors=wrong, words=10, due=True,
               seen=Seen(answered=True, cut_in=False, voice_to_voice_ms=ms + number))
        for number, score in enumerate(scores)
    ]  # fmt: skip


def test_measures_have_intervals_and_leave_out_what_was_not_seen() -> None:
    found = measures.summary([*results([1.0] * 8 + [0.0] * 2, wrong=1), Result("s", 1, "skipped")])
    assert found["score"]["value"] == 0.8
    assert found["score"]["lower"] == pytest.approx(0.49, abs=0.01)
    assert found["score"]["upper"] == pytest.approx(0.943, abs=0.01)
    assert found["word_error_rate"] == {"value": 0.1, "lower": 0.1, "upper": 0.1, "n": 10, "cases": 10}
    assert found["voice_to_voice_ms"]["value"] == 704.5
    assert found["response_rate"]["lower"] < 1
    assert "false_interruptions" not in found
    assert "first_ms" not in found


def test_rounds_of_one_case_count_as_one_case() -> None:
    rounds = [*results([1.0, 0.0]), *results([1.0, 0.0]), *results([1.0, 0.0])]
    alone = measures.summary(results([1.0, 0.0]))["score"]
    assert measures.summary(rounds)["score"]["cases"] == 2
    assert measures.summary(rounds)["score"]["lower"] == pytest.approx(alone["lower"], abs=0.05)


def test_two_runs_are_compared_case_by_case() -> None:
    old, new = results([1.0] * 12), results([0.5] * 6 + [1.0] * 6, wrong=1, ms=900)
    told = measures.compare(old, new)
    score, wait = told["measures"]["score"], told["measures"]["voice_to_voice_ms"]
    assert (score["old"], score["new"], score["verdict"]) == (1.0, 0.75, "worse")
    assert score["lower"] < -0.25 < score["upper"] < 0
    assert (wait["difference"], wait["lower"], wait["upper"]) == (200, 200, 200)
    assert told["worse"] == [f"c{number}" for number in range(6)]
    assert told["better"] == []
    same = measures.compare(old, results([1.0] * 11 + [0.5]))
    assert same["measures"]["score"]["verdict"] == "unclear"
    other = measures.compare(old[:2], results([1.0] * 3))
    assert (other["only_old"], other["only_new"]) == ([], ["c2"])


def told(now: list[Result], before: list[Result] | None = None) -> dict[str, Any]:
    return {
        "measures": measures.summary(now),
        "against": measures.compare(before, now) if before else None,
        "results": [each.json() for each in now],
    }


def test_a_gate_says_what_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("measures: {score: {min: 0.9, worse: 0.1}, voice_to_voice_ms: {max: 800}, first_ms: {max: 1}}\n"
                    "must_pass: [c0, c11, other]\nfailed: 2\n")  # fmt: skip
    gate = limits.read(path)
    good = results([1.0] * 12)
    assert limits.broken(gate, told(good, good)) == ["first_ms: was not measured", "must_pass: other was not tried"]
    found = limits.broken(gate, told(results([0.5] * 6 + [1.0] * 6, ms=900), good))
    assert found == [
        "score: 75.0%, at least 90.0% is wanted",
        "score: 100.0% before, 75.0% now: worse by more than 10.0%",
        "voice_to_voice_ms: 906 ms, at most 800 ms is allowed",
        "first_ms: was not measured",
        "must_pass: c0 failed",
        "must_pass: other was not tried",
        "failed: 6 cases (c0, c1, c2, c3, c4, c5), at most 2 may",
    ]
    assert "score: `worse` needs --against a run that has it" in limits.broken(gate, told(good))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("measures: {wer: {max: 1}}", "gate.yaml: measures: 'wer' is no measure; there are score"),
        ("measures: {score: {least: 1}}", "measures.score.least: Extra inputs"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_gate_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        limits.read(path)
    assert said in str(error.value)
