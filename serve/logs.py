"""Whose a log line is: call, turn, tenant and trace, on every line of Parley's where they are known.

Serve writes each record as one JSON object a line, with whatever a record has beside its message; so a filter on the
loggers is all it takes. What people say is in no line: errors are named by their type.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

LOGGERS = ("ray.serve", "ray.serve.parley")
"""Serve's own, which writes to the replica's file, and the one below it."""

PREFIX = "call %s"
"""A message that begins so says by its first argument whose it is, in whatever task it is written."""


@dataclass(slots=True)
class About:
    """Whose lines are; shared by all tasks of a call, so that a change shows in each.

    Attributes:
        call: The room's name.
        turn: 1, 2, ...; 0: none yet.
        tenant: Whose call it is; "": not known.
        trace: Id of the turn's trace; "": it is not traced.
    """

    call: str = ""
    turn: int = 0
    tenant: str = ""
    trace: str = ""


_about: ContextVar[About | None] = ContextVar("parley_about", default=None)


def begin(call: str, trace: str = "") -> About:
    """Let the lines of this task, and of those that it starts from now on, be a call's.

    Args:
        call: The room's name.
        trace: A traceparent, or "".
    """
    about = About(call, trace=trace_id(trace))
    _about.set(about)
    return about


def trace_id(traceparent: str) -> str:
    """Return the trace's id in W3C's traceparent; "" of ""."""
    return traceparent.split("-")[1] if traceparent else ""


class _Whose(logging.Filter):
    """Lets everything pass, and says whose it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is known."""
        about = _about.get()
        named = str(record.args[0]) if str(record.msg).startswith(PREFIX) and isinstance(record.args, tuple) else ""
        if named:
            record.call = named
        if about is not None and named in ("", about.call):
            known = {"call": about.call, "turn": about.turn, "tenant": about.tenant, "trace_id": about.trace}
            record.__dict__.update({name: value for name, value in known.items() if value})
        return True


@cache
def install() -> None:
    """Begin in this process; harmless when called again."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_Whose())
