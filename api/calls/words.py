"""A call's transcript: who said what and when, as JSON, plain text and WebVTT."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, Field

from api.db.tables import Call, Turn
from api.openai.subtitles import clock, escaped

SHORTEST = 0.5
"""Seconds that a cue is shown at least."""


class Said(BaseModel):
    """Something that one of them said."""

    speaker: Literal["caller", "assistant"] = Field(examples=["caller"])
    text: str = Field(examples=["When do you open?"])
    turn: int | None = Field(description="Number of the turn; null: the greeting", examples=[1])
    begin: float | None = Field(description="Seconds since the call was answered", examples=[4.2])
    end: float | None = Field(description="In a call that went on elsewhere some times are not known", examples=[5.7])
    interrupted: bool = Field(default=False, description="It was cut off; the text is what was heard")
    typed: bool = Field(default=False, description="It was typed")


class Transcript(BaseModel):
    """All that was said in a call."""

    call_id: str = Field(examples=["call-7f3a9c1b2d4e"])
    assistant: str = Field(examples=["default"])
    caller: str = Field(examples=["Ada"])
    began_at: datetime.datetime = Field(description="`begin` and `end` count from here")
    complete: bool = Field(description="The call has ended")
    said: list[Said]


def transcript(call: Call, turns: Sequence[Turn]) -> Transcript:
    """Return the transcript of a call whose turns are given in order."""
    zero = (call.answered_at or call.created_at).timestamp()
    said: list[Said] = []
    if greeting := _greeting(call.messages):
        said.append(Said(speaker="assistant", text=greeting, turn=None, begin=None, end=None))
    for turn in turns:
        times = cast("dict[str, Any]", turn.measures.get("times") or {})
        for speaker, text, when in (("caller", turn.heard, "question"), ("assistant", turn.answer, "answer")):
            if not text:
                continue
            begin, end = times.get(when) or (None, None)
            line = Said(
                speaker=cast(Any, speaker),
                text=text,
                turn=turn.number,
                begin=None if begin is None else round(max(0.0, begin - zero), 3),
                end=None if end is None else round(max(0.0, end - zero), 3),
            )
            line.interrupted = turn.interrupted and speaker == "assistant"
            line.typed = turn.typed and speaker == "caller"
            said.append(line)
    return Transcript(
        call_id=call.id,
        assistant=call.assistant,
        caller=call.caller,
        began_at=call.answered_at or call.created_at,
        complete=call.status == "ended",
        said=said,
    )


def text(found: Transcript) -> str:
    """Return it to be read: a line for each, with the time where it is known."""
    return "".join(f"{_at(each.begin)}{_name(found, each)}: {_line(each.text)}\n" for each in found.said)


def webvtt(found: Transcript) -> str:
    """Return WebVTT with voice tags; what has no time has no cue."""
    cues: list[str] = []
    for each in timed(found.said):
        begin, end = cast(float, each.begin), max(cast(float, each.end), cast(float, each.begin) + SHORTEST)
        voice = f"<v {escaped(_name(found, each))}>{escaped(each.text)}</v>"
        cues.append(f"{clock(begin, '.')} --> {clock(end, '.')}\n{voice}\n")
    return "\n".join(["WEBVTT\n", *cues])


def timed(said: Iterable[Said]) -> list[Said]:
    """Return what has a time, by the time; players need cues in order."""
    return sorted((each for each in said if each.begin is not None), key=lambda each: cast(float, each.begin))


def _greeting(messages: list[dict[str, Any]] | None) -> str:
    """Return what the assistant said before the first question."""
    said: list[str] = []
    for message in messages or ():
        if message.get("role") == "user":
            break
        if message.get("role") == "assistant" and isinstance(message.get("content"), str):
            said.append(message["content"])
    return " ".join(said)


def _name(found: Transcript, each: Said) -> str:
    return _line((found.caller or "Caller") if each.speaker == "caller" else found.assistant)


def _line(given: str) -> str:
    return " ".join(given.split())


def _at(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"[{minutes:02}:{rest:02}] "
