"""Forms with files (multipart/form-data, RFC 7578), taken apart in memory; their size is bounded before."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message

from serve.errors import BadRequest

_MOST_PARTS = 64
_MOST_HEADERS = 8192


@dataclass(frozen=True, slots=True)
class Part:
    """One field.

    Attributes:
        name: Of the field.
        data: As it was sent.
        filename: As the client names the file; None where it is none.
    """

    name: str
    data: bytes
    filename: str | None = None

    @property
    def text(self) -> str:
        """The value as text.

        Raises:
            BadRequest: It is not UTF-8.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise BadRequest(self.name, "not text in UTF-8") from None


def parse(content_type: str, body: bytes) -> list[Part]:
    """Return the fields of a form.

    Args:
        content_type: The request's header, which names the boundary.
        body: The whole body.

    Raises:
        BadRequest: It is no form, or it breaks off.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise BadRequest("body", "must be multipart/form-data with a boundary")
    mark = b"--" + boundary.encode("latin-1", "replace")
    at = body.find(mark)
    if at < 0:
        raise BadRequest("body", "the form's boundary is not in it")
    parts: list[Part] = []
    at += len(mark)
    while body[at : at + 2] != b"--":
        end = body.find(b"\r\n" + mark, at)
        start = body.find(b"\r\n\r\n", at, at + _MOST_HEADERS)
        if end < 0 or start < 0 or start > end or len(parts) == _MOST_PARTS:
            raise BadRequest("body", "the form is broken, or breaks off")
        parts.append(_part(body[at:start], body[start + 4 : end]))
        at = end + 2 + len(mark)
    return parts


def _part(head: bytes, data: bytes) -> Part:
    disposition = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            disposition["content-disposition"] = value.strip()
    name = disposition.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise BadRequest("body", "a part of the form has no name")
    return Part(name, data, disposition.get_filename())
