"""What was right about a case, from what was seen of it: no audio, no clock, no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import jiwer

from cluster.evaluation.suite import Case

Status = Literal["passed", "failed", "skipped", "error"]
Kind = Literal["turn", "heard", "answer", "tool", "judge", "time"]

ANSWERS: tuple[Kind, ...] = ("answer", "tool", "judge")
"""Kinds of checks that are about the answer: the answer score is made of these."""

_PLAIN = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.ExpandCommonEnglishContractions(),
        jiwer.SubstituteRegexes({r"[-_/]": " "}),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)
"""Case, marks and contractions are no errors."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's: `holds` is None where it gave none."""

    holds: bool | None
    why: str


@dataclass(slots=True)
class Seen:
    """What was seen of one case; None: it could not be seen, or was not asked for.

    Attributes:
        heard: What speech to text made of the question.
        answer: The answer's words, as far as they were heard.
        tools: Tools that were called, by name, with their arguments where they are known.
        answered: The question, or what was said over the answer, was answered.
        silent: Nobody said anything.
        interrupted: The answer was cut off for good.
        cut_in: The agent was heard before the caller had finished.
        voice_to_voice_ms: End of speech to the answer's first sound, measured from the audio.
        first_ms: Straight at a model: request to first token, or to first sound.
        real_time: Straight at a model: time it took, as a share of the speech's length.
        verdict: The judge's.
        voice: Who asked.
        models: Who answered, by role.
        note: What a reader should know.
    """

    heard: str | None = None
    answer: str | None = None
    tools: list[tuple[str, dict[str, Any] | None]] | None = None
    answered: bool | None = None
    silent: bool | None = None
    interrupted: bool | None = None
    cut_in: bool | None = None
    voice_to_voice_ms: float | None = None
    first_ms: float | None = None
    real_time: float | None = None
    verdict: Verdict | None = None
    voice: str = ""
    models: dict[str, str] = field(default_factory=dict[str, str])
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation: `ok` is None where it could not be seen, and does not count."""

    kind: Kind
    what: str
    ok: bool | None
    found: str = ""


@dataclass(slots=True)
class Result:
    """How a case went, once.

    Attributes:
        case: Its name.
        round: 1, 2, ...
        status: "error" is a case that broke off, and counts as failed; "skipped" does not count.
        score: 0.0 to 1.0: the share of checks that hold; of a recogniser or a voice 1 less the word error rate.
        checks: What was looked at.
        errors: Words that were inserted, deleted or substituted; None: no words were compared.
        words: Of the reference.
        due: The question needed an answer.
        goes_on: The answer was to go on (true) or to end (false) under what was said over it; None: nothing was.
    """

    case: str
    round: int
    status: Status
    score: float | None = None
    checks: tuple[Check, ...] = ()
    errors: int | None = None
    words: int | None = None
    due: bool = False
    goes_on: bool | None = None
    said: str = ""
    seen: Seen = field(default_factory=Seen)

    def json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def result(case: Case, number: int, seen: Seen, role: str | None) -> Result:
    """Judge a case.

    Args:
        case: What was expected.
        number: Of the round.
        seen: What came of it.
        role: Of the model that was asked straight; None: it was a call.
    """
    text = seen.answer if role == "tts" else seen.heard
    spoken = (case.text,) if role == "tts" else case.references
    errors = words = None
    if text is not None and spoken and (role == "tts" or case.expect.answered):
        errors, words = word_errors(spoken, text)
    checks = tuple(_checks(case, seen, role, None if errors is None or not words else errors / words))
    counted = [check.ok for check in checks if check.ok is not None]
    if role in ("stt", "tts"):
        score = max(0.0, 1 - errors / words) if errors is not None and words else None
    else:
        score = sum(counted) / len(counted) if counted else None
    if role is None and case.over and seen.answered and seen.interrupted is None:
        score = None  # nothing was shown of what the case is for
    status: Status = "skipped" if score is None else "passed" if all(counted) else "failed"
    if score is None and not seen.note:
        seen.note = "it expects nothing of this"
    return Result(
        case.name, number, status, score, checks, errors, words,
        due=role is None and case.expect.answered and case.expect.interrupted is not False,
        goes_on=None if case.expect.interrupted is None else not case.expect.interrupted,
        said=" … ".join((*case.before, case.text)), seen=seen,
    )  # fmt: skip


def skipped(case: Case, number: int, why: str) -> Result:
    """Return the result of a case that cannot be tried here."""
    return Result(case.name, number, "skipped", said=" … ".join((*case.before, case.text)), seen=Seen(note=why))


def broken(case: Case, number: int, why: str, role: str | None) -> Result:
    """Return the result of a case that broke off: nothing of it is right."""
    due = role is None and case.expect.answered and case.expect.interrupted is not False
    words = len(_words((case.references or ("",))[0])) if role != "llm" and case.expect.answered else 0
    lost = words or None
    seen = Seen(answered=False, note=why)
    return Result(
        case.name,
        number,
        "error",
        0.0,
        errors=lost,
        words=lost,
        due=due,
        said=" … ".join((*case.before, case.text)),
        seen=seen,
    )


def word_errors(references: Sequence[str], heard: str) -> tuple[int, int]:
    """Return the fewest word errors against any reference, and the words of that one."""
    found: list[tuple[int, int]] = []
    for reference in references:
        count = len(_words(reference))
        if not _words(heard):
            found.append((count, count))
            continue
        done = jiwer.process_words(reference, heard, reference_transform=_PLAIN, hypothesis_transform=_PLAIN)
        found.append((done.substitutions + done.deletions + done.insertions, count))
    return min(found, key=lambda each: each[0] / max(1, each[1]))


def _words(text: str) -> list[str]:
    found: list[list[str]] = cast(Any, _PLAIN)(text) if text.strip() else [[]]
    return found[0]


def _checks(case: Case, seen: Seen, role: str | None, rate: float | None) -> Iterator[Check]:
    expect = case.expect
    if role is None:
        yield from _turn(case, seen)
    if role in (None, "stt"):
        heard = expect.heard
        if heard.max_wer is not None:
            ok = None if rate is None else rate <= heard.max_wer
            yield Check(
                "heard", f"word error rate at most {heard.max_wer:.0%}", ok, "" if rate is None else f"{rate:.0%}"
            )
        for text in heard.contains:
            yield Check("heard", f"hears “{text}”", None if seen.heard is None else _has(seen.heard, text))
    if role in (None, "llm"):
        yield from _answer(case, seen)
        yield from _tool(case, seen)
        if expect.judge is not None:
            verdict = seen.verdict or Verdict(None, "no judge is configured")
            yield Check("judge", expect.judge, verdict.holds, verdict.why)


def _turn(case: Case, seen: Seen) -> Iterator[Check]:
    expect, found = case.expect, seen.voice_to_voice_ms
    if not expect.answered:
        yield Check("turn", "nobody answers", seen.silent)
        return
    if expect.interrupted is not None:
        what = "ends when it is talked over" if expect.interrupted else "goes on"
        ok = None if seen.interrupted is None else seen.interrupted == expect.interrupted
        yield Check("turn", f"the answer {what}", ok)
    if expect.interrupted is not False:
        yield Check("turn", "answered", seen.answered)
    if seen.cut_in is not None:
        yield Check("turn", "heard to the end", not seen.cut_in)
    if expect.within is not None:
        ok = None if found is None else found <= expect.within * 1000
        yield Check("time", f"within {expect.within:g} s", ok, "" if found is None else f"{found / 1000:.2f} s")


def _answer(case: Case, seen: Seen) -> Iterator[Check]:
    rules, answer = case.expect.answer, seen.answer

    def check(what: str, holds: bool, found: str = "") -> Check:
        # Where there is no answer, no rule on it holds: silence lacks every word.
        return Check("answer", what, bool(answer) and holds, found)

    words = len((answer or "").split())
    for text in rules.contains:
        yield check(f"contains “{text}”", _has(answer or "", text))
    if rules.any_of:
        listed = ", ".join(f"“{text}”" for text in rules.any_of)
        yield check(f"contains one of {listed}", any(_has(answer or "", text) for text in rules.any_of))
    for text in rules.lacks:
        yield check(f"lacks “{text}”", not _has(answer or "", text))
    if rules.matches is not None:
        yield check(f"matches {rules.matches}", re.search(rules.matches, answer or "", re.IGNORECASE) is not None)
    if rules.min_words is not None:
        yield check(f"at least {rules.min_words} words", words >= rules.min_words, f"{words} words")
    if rules.max_words is not None:
        yield check(f"at most {rules.max_words} words", words <= rules.max_words, f"{words} words")


def _tool(case: Case, seen: Seen) -> Iterator[Check]:
    wanted = case.expect.tool
    if wanted is None:
        return
    if seen.tools is None:
        yield Check("tool", f"calls {wanted.name}", None, "tools were not seen")
        return
    called = ", ".join(name for name, _ in seen.tools) or "no tool"
    mine = [arguments for name, arguments in seen.tools if name == wanted.name]
    yield Check("tool", f"calls {wanted.name}", bool(mine), f"called {called}")
    for key, value in wanted.arguments.items():
        known = [arguments for arguments in mine if arguments is not None]
        ok = None if mine and not known else any(_same(arguments.get(key), value) for arguments in known)
        found = "a call tells no arguments" if ok is None else ", ".join(str(each.get(key)) for each in known)
        yield Check("tool", f"with {key} = {value}", ok, found)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, str) and isinstance(wanted, str):
        return found.strip().casefold() == wanted.strip().casefold()
    return bool(found == wanted)


def _has(text: str, part: str) -> bool:
    """Whether a text has words in it, as whole words: `no` is not in `know`."""
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text, re.IGNORECASE) is not None
