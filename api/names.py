"""Words of requests that reach the database: what every field of their kind has in common."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import StringConstraints

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
]
"""What people call a thing: one line."""

_ID = r"^[A-Za-z0-9._:@-]+$"

PathId = Annotated[str, Path(max_length=64, pattern=_ID)]
"""An id in an address."""

QueryId = Annotated[str | None, Query(max_length=64, pattern=_ID)]
"""An id as a filter."""
