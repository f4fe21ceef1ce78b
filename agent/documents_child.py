"""Reads one file in a process of its own, which knows nothing of Parley and has its limits set before it looks.

Run by `agent/documents.py` as a script: a line of JSON (`name`, `pictures`) and the file's bytes come on stdin, one
JSON object goes to stdout: `kind`, `text`, `note`, `picture`; or `code` and `problem`. Imports nothing of ours.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import resource
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, cast

MEMORY_BYTES = 768 * 2**20
CPU_SECONDS = 10
SOFT_SECONDS = 6.0
"""CPU time after which a long document is left at the pages that have been read."""

PAGES = 200
CHARACTERS = 100_000
"""Of one file; the rest is cut off, which is said."""

UNPACKED_BYTES = 64 * 2**20
ENTRIES = 4000
PICTURE_PIXELS = 40_000_000
PICTURE_SIDE = 1024
"""Pixels of a picture's longer side, as the model gets it: what the providers' own scaling leaves about."""

PICTURE_BYTES = 256 * 1024
"""A smaller picture of a fitting size is passed on as it is."""

TAKEN = "send plain text, Markdown, CSV, PDF or DOCX"
PICTURES = {"image/png": "png_pipe", "image/jpeg": "jpeg_pipe", "image/webp": "webp_pipe", "image/gif": "gif"}
_DELIMITERS = ",;\t|"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


class Refused(Exception):
    """The file is not taken: a stable code, and a sentence on what is wrong and what would be right."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code, problem)
        self.code, self.problem = code, problem


def picture(data: bytes) -> str | None:
    """Return the media type of a picture by its first bytes; None: it is none that is known."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if data[:6] in (b"GIF87a", b"GIF89a") else None


def read(name: str, data: bytes, pictures: bool) -> dict[str, Any]:
    """Return what is in a file; what it is, is decided by its content.

    Args:
        name: As the sender calls it.
        data: The whole file.
        pictures: The model sees pictures.

    Raises:
        Refused: It is not taken.
    """
    if not data.strip():
        raise Refused("unreadable", "is empty")
    if (kind := picture(data)) is not None:
        if not pictures:
            raise Refused("unsupported", f"is a picture, and this assistant sees none; {TAKEN}")
        return _picture(data, kind)
    # Some writers put a few bytes before the header, and readers take it.
    if b"%PDF-" in data[:1024]:
        return _cut("application/pdf", *_pdf(data))
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _cut("application/vnd.openxmlformats-officedocument.wordprocessingml.document", *_docx(data))
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise Refused("unsupported", "is an old or encrypted Office file; save it as DOCX, PDF or CSV, unencrypted")
    text = _decoded(data)
    if (rows := _table(name, text)) is not None:
        return _cut("text/csv", _records(rows), "")
    markdown = name.lower().endswith((".md", ".markdown"))
    return _cut("text/markdown" if markdown else "text/plain", [text], "")


def _cut(kind: str, parts: Iterable[str], note: str) -> dict[str, Any]:
    """Join parts up to the limit of characters."""
    text, cut = "", False
    for part in parts:
        text += part
        if len(text) > CHARACTERS:
            text, cut = text[:CHARACTERS], True
            break
    if not text.strip():
        raise Refused("unreadable", "holds no text that can be read; if it is scanned, send one with text in it")
    if cut:
        said = f"only the first {CHARACTERS:,} characters were read"
        note = f"{note}; {said}" if note else said
    return {"kind": kind, "text": text.strip(), "note": note, "picture": None}


def _decoded(data: bytes) -> str:
    """Return text in whatever encoding it is."""
    text = None
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            text = data.decode(encoding, "replace")
    if text is None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None
    if text is None and b"\x00" not in data:
        from charset_normalizer import from_bytes

        best = from_bytes(data[:65536]).best()
        text = data.decode(best.encoding, "replace") if best is not None else None
    if text is None or len(_CONTROL.findall(text[:65536])) > len(text[:65536]) // 200:
        raise Refused("unsupported", f"is of a kind that is not read; {TAKEN}")
    return _CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _table(name: str, text: str) -> list[list[str]] | None:
    """Return rows where each has the same number of cells, two at least; the name may only tip the scales."""
    named = name.lower().endswith((".csv", ".tsv"))
    lines = [line for line in text.split("\n", 200)[:200] if line.strip()]
    if len(lines) < (1 if named else 3):
        return None
    csv.field_size_limit(CHARACTERS)
    for delimiter in sorted(_DELIMITERS, key=lambda each: -lines[0].count(each)):
        width = lines[0].count(delimiter) + 1
        if width < 2:
            return None
        try:
            rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, row))]
        except csv.Error:
            continue
        # Prose has commas, too, but hardly the same number in every line.
        even = sum(len(row) == len(rows[0]) for row in rows[:200]) >= len(rows[:200]) * (0.8 if named else 1.0)
        if even and len(rows[0]) >= 2 and (named or delimiter != "," or ", " not in lines[0]):
            return rows
    return None


def _records(rows: list[list[str]]) -> Iterator[str]:
    """Yield each row as a line that says which cell is what: a row is understood alone, and can be spoken."""
    head = [cell.strip() for cell in rows[0]]
    titled = (
        len(rows) > 1 and all(head) and len(set(head)) == len(head) and not any(re.match(r"[-+]?\d", c) for c in head)
    )
    for row in rows[1:] if titled else rows:
        cells = [cell.strip() for cell in row]
        if titled:
            cells = [f"{head[at]}: {cell}" if at < len(head) else cell for at, cell in enumerate(cells) if cell]
        yield "; ".join(cells) + "\n"


def _pdf(data: bytes) -> tuple[list[str], str]:
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    parts: list[str] = []
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("unreadable", "is encrypted; send it without a password")
        pages, length, taken = len(reader.pages), 0, 0
        for page in reader.pages[:PAGES]:
            parts.append((page.extract_text() or "") + "\n\n")
            taken, length = taken + 1, length + len(parts[-1])
            if length > CHARACTERS or time.process_time() > SOFT_SECONDS:
                break
    except DependencyError:
        raise Refused("unreadable", "is encrypted in a way that is not read; send it without a password") from None
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        AssertionError,
        RecursionError,
        OSError,
    ):
        if not parts:
            raise Refused("unreadable", "is a PDF that is broken; save it anew, or send its text") from None
        return parts, f"only the first {len(parts)} pages were read: the rest is broken"
    return parts, f"only the first {taken} of {pages} pages were read" if taken < pages else ""


def _docx(data: bytes) -> tuple[Iterator[str], str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            entries = packed.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise Refused("unreadable", f"is an archive that is broken; {TAKEN}") from None
    names = {entry.filename for entry in entries}
    if "word/document.xml" not in names:
        if "xl/workbook.xml" in names:
            raise Refused("unsupported", "is a spreadsheet; save it as CSV")
        raise Refused("unsupported", f"is an archive or of a kind that is not read; {TAKEN}")
    # `zipfile` reads no more of an entry than it says to hold.
    if len(entries) > ENTRIES or sum(entry.file_size for entry in entries) > UNPACKED_BYTES:
        raise Refused("too_large", f"unpacks to more than {UNPACKED_BYTES // 2**20} MB; send its text alone")
    import docx
    import lxml.etree
    from docx.opc.exceptions import OpcError

    try:
        document = docx.Document(io.BytesIO(data))
        # All of it now, so that what is broken further down is found here.
        return iter(list(_blocks(document))), ""
    except (
        OpcError,
        zipfile.BadZipFile,
        lxml.etree.LxmlError,
        KeyError,
        ValueError,
        AttributeError,
        OSError,
        EOFError,
    ):
        raise Refused("unreadable", "is a DOCX that is broken; save it anew, or send its text") from None


def _blocks(document: Any) -> Iterator[str]:
    """Yield paragraphs and tables as they stand, up to the limit."""
    length = 0
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            piece = "\n".join(" | ".join(dict.fromkeys(cell.text.strip() for cell in row.cells)) for row in block.rows)
        else:
            level = re.match(r"(?:Heading|Title) ?(\d?)", str(block.style.name) if block.style is not None else "")
            piece = ("#" * int(level[1] or 1) + " " if level else "") + block.text
        if piece.strip():
            length += len(piece)
            yield piece + "\n\n"
        if length > CHARACTERS:
            return


def _picture(data: bytes, kind: str) -> dict[str, Any]:
    import av
    import av.error

    try:
        with av.open(io.BytesIO(data), "r", format=PICTURES[kind], options={"protocol_whitelist": "none"}) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > PICTURE_PIXELS:
                raise Refused(
                    "too_large", f"has more than {PICTURE_PIXELS // 10**6} million pixels; send a smaller one"
                )
            frame = cast(Any, next(container.decode(stream)))
    except (av.error.FFmpegError, StopIteration, ValueError, IndexError):
        raise Refused("unreadable", "is a picture that is broken; save it anew as PNG or JPEG") from None
    side = max(frame.width, frame.height)
    if side > PICTURE_SIDE or len(data) > PICTURE_BYTES:
        share = min(1.0, PICTURE_SIDE / side)
        # Chroma has half the resolution: sides are even.
        width, height = (max(2, round(each * share / 2) * 2) for each in (frame.width, frame.height))
        frame = frame.reformat(width=width, height=height, format="yuvj420p")
        encoder = cast(Any, av.CodecContext.create("mjpeg", "w"))
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
        encoder.time_base = Fraction(1)
        frame.pts = None
        encoder.options = {"qmin": "2", "qmax": "5"}
        data, kind = b"".join(bytes(each) for each in [*encoder.encode(frame), *encoder.encode(None)]), "image/jpeg"
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"kind": kind, "text": "", "note": "", "picture": url}


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def main() -> None:
    """Read what comes on stdin; whatever happens, the answer says it, or there is none."""
    _limit()
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        answer = read(asked["name"], sys.stdin.buffer.read(), asked["pictures"])
    except Refused as refused:
        answer = {"code": refused.code, "problem": refused.problem}
    except MemoryError:
        answer = {"code": "too_large", "problem": "needs more memory to read than is given to it; send a smaller one"}
    except Exception:  # other people's parsers on other people's files
        answer = {"code": "unreadable", "problem": f"cannot be read; {TAKEN}"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
