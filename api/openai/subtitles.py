"""Segments of a transcript, and subtitles of them (SubRip and WebVTT)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from serve.contracts import Segment, Transcript, Word

_PAUSE_SECONDS = 0.8
_MOST_SECONDS = 7.0
_MOST_CHARACTERS = 84
"""Two lines of 42 characters and 7 s are what subtitles are commonly held to."""


def segments(transcript: Transcript, seconds: float) -> list[Segment]:
    """Return a transcript in stretches of about a sentence.

    Args:
        transcript: Its own segments are taken where it has some; else its words are gathered; else it is one segment.
        seconds: Length of the recording.
    """
    if transcript.segments:
        return list(transcript.segments)
    if transcript.words:
        return [_segment(group) for group in _groups(transcript.words)]
    return [Segment(transcript.text, 0.0, seconds)] if transcript.text else []


def _groups(words: Sequence[Word]) -> list[list[Word]]:
    groups = [[words[0]]]
    for before, word in pairwise(words):
        group = groups[-1]
        characters = sum(len(each.text) + 1 for each in group) + len(word.text)
        long = word.end - group[0].start > _MOST_SECONDS or characters > _MOST_CHARACTERS
        if long or word.start - before.end > _PAUSE_SECONDS:
            groups.append([word])
        else:
            group.append(word)
    return groups


def _segment(words: Sequence[Word]) -> Segment:
    return Segment(" ".join(word.text for word in words), words[0].start, words[-1].end)


def srt(parts: Sequence[Segment]) -> str:
    """Return SubRip."""
    cues = [
        f"{number}\n{clock(part.start, ',')} --> {clock(part.end, ',')}\n{_line(part.text)}\n"
        for number, part in enumerate(parts, 1)
    ]
    return "\n".join(cues)


def vtt(parts: Sequence[Segment]) -> str:
    """Return WebVTT."""
    cues = [f"{clock(part.start, '.')} --> {clock(part.end, '.')}\n{escaped(part.text)}\n" for part in parts]
    return "\n".join(["WEBVTT\n", *cues])


def clock(seconds: float, point: str) -> str:
    """Return a time as subtitles write it; `point` stands before the milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _line(text: str) -> str:
    """A blank line would end the cue."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """Return text as WebVTT takes it, on one line."""
    return _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
