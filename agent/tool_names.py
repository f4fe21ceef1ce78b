"""Which tools there are, by name; neither LiveKit nor the tools themselves are imported for that."""

from __future__ import annotations

import importlib.metadata

GROUP = "parley.tools"
"""Entry points of this group are tools: name = "module:function"."""

BUILT_IN = ("end_call", "hand_over", "transfer_to_person", "read_file")


def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the tools that installed packages bring."""
    return {each.name: each for each in importlib.metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """Return all names, those built in first."""
    return [*BUILT_IN, *sorted(set(installed()) - set(BUILT_IN))]
