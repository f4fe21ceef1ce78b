"""Tools of the tests' own, installed as a deployer's package is: tests/conftest.py puts this folder on the path."""

from __future__ import annotations


def opening_hours(day: str = "today") -> str:
    """Say when the shop is open.

    Args:
        day: Of the week.
    """
    return f"The shop is open from nine to five {day}."
