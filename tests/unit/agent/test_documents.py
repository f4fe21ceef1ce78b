"""Files to text: every kind, every refusal, and what a hostile one costs."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import docx
import numpy as np
import psutil
import pypdf
import pytest

from agent import documents, documents_child
from agent.documents import TooLarge, Unsupported, read
from serve.errors import BadRequest

pytestmark = [pytest.mark.unit, pytest.mark.timeout(60)]


def pdf(*pages: str, stream: bytes | None = None) -> bytes:
    """Return a PDF with a line of text on each page; `stream`: the last page's content, compressed as it is."""
    objects: list[bytes] = []
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for at, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
        head = f"<< /Length {len(content)} >>"
        if stream is not None and at == len(pages) - 1:
            content, head = stream, f"<< /Length {len(stream)} /Filter /FlateDecode >>"
        fonts = "/Resources << /Font << /F1 3 0 R >> >>"
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {fonts} /Contents {5 + 2 * at} 0 R >>"
        objects += [page.encode(), head.encode() + b"\nstream\n" + content + b"\nendstream"]
    out = b"%PDF-1.4\n"
    places: list[int] = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF"
    return out + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


def word(*paragraphs: str) -> bytes:
    document = docx.Document()
    document.add_heading("Minutes", 1)
    for text in paragraphs:
        document.add_paragraph(text)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Budget", "900 euros"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def archive(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    return out.getvalue()


def png(width: int, height: int) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (200, 30, 30)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "rgb24", Fraction(1)
    return b"".join(bytes(each) for each in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize(
    ("name", "data", "kind", "says"),
    [
        ("note.txt", b"The code is 4711.", "text/plain", "The code is 4711."),
        ("anything", "Grüße aus Köln".encode("utf-16"), "text/plain", "Grüße aus Köln"),
        ("old.txt", "Überraschung für Größe, schöne Straße und Bären".encode("latin-1"), "text/plain", "schöne Straße"),
        ("plan.md", b"# Plan\n\n- one\n- two\n", "text/markdown", "# Plan"),
        ("people.csv", b"name,age\nAda,36\nBob,7\n", "text/csv", "name: Ada; age: 36\nname: Bob; age: 7"),
        ("data", b"a;b\n1;2\n3;4\n", "text/csv", "a: 1; b: 2"),
        ("prose.txt", b"Well, he said.\nThen, she said.\nSo, they said.\n", "text/plain", "Well, he said."),
        ("report.pdf", pdf("The zebra is striped.", "Page two."), "application/pdf", "Page two."),
        ("wrongly.txt", pdf("A PDF all the same."), "application/pdf", "A PDF all the same."),
        ("minutes.docx", word("We met on Monday."), "application/vnd.openxml", "We met on Monday."),
        ("minutes.docx", word("x"), "application/vnd.openxml", "Budget | 900 euros"),
    ],
)
async def test_each_kind_is_read_by_its_content(name: str, data: bytes, kind: str, says: str) -> None:
    found = await read(name, data)
    assert found.kind.startswith(kind)
    assert says in found.text
    assert (found.name, found.size, found.note, found.picture) == (name, len(data), "", None)


def locked() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("secret")))
    writer.encrypt("password", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "error", "says"),
    [
        ("empty.txt", b" \n", BadRequest, "is empty"),
        ("scan.pdf", pdf(""), BadRequest, "holds no text"),
        ("locked.pdf", locked(), BadRequest, "encrypted; send it without a password"),
        ("broken.pdf", b"%PDF-1.7\n" + bytes(range(256)), BadRequest, "broken"),
        ("broken.docx", word("x")[:-400], BadRequest, "broken"),
        (
            "hollow.docx",
            archive({"word/document.xml": b"<not-xml", "[Content_Types].xml": b"<x/>"}),
            BadRequest,
            "broken",
        ),
        ("sheet.xlsx", archive({"xl/workbook.xml": b"<x/>"}), Unsupported, "save it as CSV"),
        ("some.zip", archive({"a.txt": b"hello"}), Unsupported, "archive"),
        ("old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), Unsupported, "save it as DOCX"),
        ("program.txt", b"\x7fELF" + bytes(range(256)) * 8, Unsupported, "send plain text"),
        ("photo.txt", png(8, 8), Unsupported, "picture"),
    ],
)
async def test_refusals_say_what_would_be_right(name: str, data: bytes, error: type[BadRequest], says: str) -> None:
    with pytest.raises(error) as caught:
        await read(name, data)
    assert says in str(caught.value)


async def test_pictures_are_for_models_that_see_and_are_made_small() -> None:
    small = await read("dot.png", png(64, 48), pictures=True)
    assert (small.kind, small.text) == ("image/png", "")
    assert small.picture is not None
    assert small.picture.startswith("data:image/png;base64,")
    large = await read("large.png", png(3000, 2000), pictures=True)
    assert large.kind == "image/jpeg"
    assert large.picture is not None
    assert len(large.picture) < 200_000
    with pytest.raises(BadRequest, match="broken"):
        await read("half.png", png(64, 48)[:60], pictures=True)


async def test_a_file_over_the_size_is_not_even_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_ask", None)
    with pytest.raises(TooLarge, match="10 MB"):
        await read("big.txt", bytes(documents.FILE_BYTES + 1))


async def test_what_is_cut_off_is_said() -> None:
    long = await read("long.txt", b"word " * 40_000)
    assert len(long.text) <= documents_child.CHARACTERS
    assert "only the first 100,000 characters" in long.note
    many = await read("many.pdf", pdf(*(f"This is page {at}." for at in range(documents_child.PAGES + 20))))
    assert f"only the first {documents_child.PAGES} of {documents_child.PAGES + 20} pages" in many.note
    assert "This is page 199." in many.text


async def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    document = word("x")
    with zipfile.ZipFile(io.BytesIO(document)) as packed:
        entries = {name: packed.read(name) for name in packed.namelist()}
    entries["word/media/image1.bin"] = bytes(80 * 2**20)
    bomb = archive(entries)
    assert len(bomb) < 2**18
    with pytest.raises(TooLarge, match="unpacks to more than"):
        await read("bomb.docx", bomb)


async def test_entities_that_grow_are_not_expanded() -> None:
    levels = "".join(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10}">' for at in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY e0 "ha">{levels}]><d>&e9;</d>'
    with zipfile.ZipFile(io.BytesIO(word("x"))) as packed:
        entries = {name: packed.read(name) for name in packed.namelist()}
    entries["word/document.xml"] = laughs.encode()
    with pytest.raises(BadRequest):
        await read("laughs.docx", archive(entries))


async def test_a_pdf_that_unpacks_without_end_costs_the_child_only() -> None:
    before = psutil.Process().memory_info().rss
    bomb = pdf("One page is fine.", "", stream=zlib.compress(bytes(400 * 2**20), 9))
    assert len(bomb) < 2**20
    found = await read("bomb.pdf", bomb)
    assert "One page is fine." in found.text
    assert "rest is broken" in found.note
    assert psutil.Process().memory_info().rss - before < 700 * 2**20


async def test_a_picture_of_too_many_pixels_is_refused() -> None:
    ihdr = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    body = b"\x00\x00\x00\x0d" + ihdr + zlib.crc32(ihdr).to_bytes(4, "big")
    idat = b"IDAT" + zlib.compress(bytes(10**6))
    body += (len(idat) - 4).to_bytes(4, "big") + idat + zlib.crc32(idat).to_bytes(4, "big")
    with pytest.raises(BadRequest):
        await read("huge.png", b"\x89PNG\r\n\x1a\n" + body, pictures=True)


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(code)
    monkeypatch.setattr(documents, "_CHILD", script)


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "child.py" in " ".join(each.cmdline())]


async def test_the_time_out_kills_the_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, "import time\ntime.sleep(60)")
    with pytest.raises(BadRequest, match="too long to read"):
        await read("slow.txt", b"x" * 10**6, within=0.3)
    assert children() == []


async def test_whoever_is_cancelled_leaves_no_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, "import sys, time\nsys.stdin.read(1)\ntime.sleep(60)")
    task = asyncio.create_task(read("slow.txt", b"x"))
    async with asyncio.timeout(10):
        while not children():  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait({task})
    assert children() == []


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",  # the CPU
        "x = []\nwhile True: x.append(bytearray(10**7))",  # memory
        "import sys\nsys.stdout.write('x' * 10**7)",  # output
        "import tempfile\nwith tempfile.TemporaryFile() as out: out.write(b'x')",  # files
        "print('no json')",
        "import os\nos.abort()",
    ],
)
async def test_a_child_that_misbehaves_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    limits = inspect.getsource(documents_child).replace("CPU_SECONDS = 10", "CPU_SECONDS = 1")
    stand_in(monkeypatch, tmp_path, limits.split("\nif __name__")[0] + f"\n_limit()\n{code}\n")
    with pytest.raises(BadRequest, match="too much time or memory"):
        await read("any.txt", b"hello")
    assert children() == []


async def test_the_child_gets_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIVEKIT_API_SECRET", "hidden")
    told = "import json, os\nprint(json.dumps({'kind': '', 'text': ' '.join(os.environ), 'note': '', 'picture': None}))"
    stand_in(monkeypatch, tmp_path, told)
    assert "LIVEKIT" in " ".join(os.environ)
    assert "LIVEKIT" not in (await read("any.txt", b"x")).text
