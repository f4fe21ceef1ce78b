"""Which profile `parley up` takes where nobody names one: better models where a hub is in reach, else embedded ones."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil

from cluster import doctor, fetch, needs
from cluster import profile as profiles
from cluster.console import Story
from serve import hub
from serve.errors import ConfigError, ParleyError
from serve.settings import home

HUB = "hub"
PROBE_SECONDS = 2.0
"""How long the hub may take to answer."""

REMEMBERED_SECONDS = 3600.0
"""A hub that kept silent is not asked again for so long: silence costs the whole of `PROBE_SECONDS`."""

MEMORY = 4 * 2**30
"""What the profile `hub` takes, with everything around it."""

_SILENCE = "hub-silent"


@dataclass(slots=True)
class Probe:
    """Asks the hub whether it is there, aside.

    Attributes:
        address: The hub's.
        answer: What came of it, once it is known.
    """

    address: str
    answer: str = ""
    _done: threading.Event = field(default_factory=threading.Event)
    _began: float = field(default_factory=time.monotonic)

    def start(self) -> Probe:
        """Ask; returns at once."""
        # A daemon: a name that does not resolve may block for longer than anybody waits.
        threading.Thread(target=self._ask, daemon=True, name="probe").start()
        return self

    @property
    def silent(self) -> bool:
        """Whether nothing has come back yet."""
        return not self._done.is_set()

    def problem(self) -> str | None:
        """Wait until the hub has answered or its time is over; None when it is there."""
        if not self._done.wait(max(0.0, self._began + PROBE_SECONDS - time.monotonic())):
            return "keeps silent"
        return self.answer or None

    def _ask(self) -> None:
        import httpx

        try:
            status = httpx.head(self.address, timeout=PROBE_SECONDS, follow_redirects=False).status_code
            # A proxy that lets nobody out answers too.
            self.answer = f"answers with {status}" if status in {403, 407} or status >= 500 else ""
        except Exception as error:  # whatever is wrong with the network, it is not in reach
            self.answer = f"is not in reach ({type(error).__name__})"
        self._done.set()


def choose(named: str | None, story: Story, end: threading.Event) -> str:
    """Return the profile to start; what it needs of the hub is here then, if it is `hub`.

    Args:
        named: What the person named (`--profile`); it goes before the variable PROFILE.
        story: Told what is taken, and why.
        end: Set by a signal's handler.

    Raises:
        ParleyError: It was stopped.
    """
    named = named or os.environ.get("PROFILE")
    if named:
        return named
    # Asked before the rest is looked at, so that only silence takes time.
    probe = None if hub.offline() or _silent() is not None else Probe(hub.endpoint()).start()
    embedded = "local" if doctor.has_flite() else "local-pip"
    why = _against(probe, embedded, story, end)
    if why is None:
        return HUB
    story.note(f"profile {embedded}, with models that come in packages: {why}")
    if embedded == "local-pip":
        story.note("libflite1 is not here (apt-get install libflite1): espeak speaks in its place")
    return embedded


def _against(probe: Probe | None, embedded: str, story: Story, end: threading.Event) -> str | None:
    """Return what speaks against the profile `hub`; None where everything it needs is here, or has just come."""
    try:
        profile = profiles.load(HUB, here=True)
    except ConfigError as error:
        return f"profile {HUB} does not fit here: {str(error).splitlines()[0]}"
    if psutil.virtual_memory().available < MEMORY:
        return f"profile {HUB} takes {MEMORY / 2**30:.0f} GiB of memory"
    references = needs.references(profile)
    if all(hub.cached(reference) for reference in references):
        story.note(f"profile {HUB}: its models are here")
        return None
    if hub.offline():
        return "HF_HUB_OFFLINE is set"
    again = f"PROFILE={HUB} asks again"
    if probe is None:
        return f"{_host()} kept silent {_silent()} minutes ago; {again}"
    problem = probe.problem()
    if problem:
        if probe.silent:
            _remember()
        return f"{_host()} {problem}; {again}"
    try:
        wanted = fetch.wanted(references)
        size, doing_without = fetch.megabytes(wanted.size), f"PROFILE={embedded} does without"
        story.note(f"profile {HUB}: {_host()} answers, and has better models; {size} to fetch, once ({doing_without})")
        fetch.fetch(wanted, story, end)
    except ParleyError as error:
        if end.is_set():
            raise
        return f"the models of {HUB} do not come: {error}"
    return None


def _host() -> str:
    return urlsplit(hub.endpoint()).netloc or hub.endpoint()


def _remember() -> None:
    with contextlib.suppress(OSError):
        home().mkdir(parents=True, exist_ok=True, mode=0o700)
        (home() / _SILENCE).write_text(hub.endpoint())


def _silent() -> int | None:
    """Return how many minutes ago this hub kept silent, where that is not long ago."""
    try:
        file = home() / _SILENCE
        ago = time.time() - file.stat().st_mtime
        return round(ago / 60) if 0 <= ago < REMEMBERED_SECONDS and file.read_text() == hub.endpoint() else None
    except OSError:
        return None
