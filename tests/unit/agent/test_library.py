"""What a model is shown of the files of a call."""

from __future__ import annotations

from typing import Any

import pytest

from agent.documents import Document
from agent.library import CHUNK, KEPT_BYTES, PART, Library, cut, words

pytestmark = pytest.mark.unit

SYSTEM = {"role": "system", "content": "Be brief."}
LONG = "\n\n".join(
    f"Chapter {number}. {topic} {'All of it is told at length here. ' * 12}"
    for number, topic in enumerate(
        ("The harbour closes at midnight.", "Zebras are kept in the northern stable.", "Invoices are paid in March."), 1
    )
)


def ask(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def library(**texts: str) -> Library:
    made = Library()
    for name, text in texts.items():
        made.add(Document(f"{name}.txt", "text/plain", len(text), text))
    return made


def test_without_files_a_prompt_is_as_it_was() -> None:
    assert Library().into([SYSTEM], [ask("Hello?")]) == [SYSTEM, ask("Hello?")]


def test_a_short_file_stands_whole_between_instructions_and_conversation() -> None:
    prompt = library(note="The code is 4711.").into([SYSTEM], [ask("What is the code?")])
    assert [message["role"] for message in prompt] == ["system", "user", "assistant", "user"]
    assert "note.txt" in prompt[1]["content"]
    assert "The code is 4711." in prompt[1]["content"]
    assert prompt[-1] == ask("What is the code?")


def test_of_a_long_file_a_question_brings_what_fits_it() -> None:
    prompt = library(book=LONG).into([SYSTEM], [ask("Where do you keep a zebra?")])
    assert "zebra" not in prompt[1]["content"].lower()
    assert "northern stable" in prompt[-1]["content"]
    assert "March" not in prompt[-1]["content"]
    assert prompt[-1]["content"].endswith("Where do you keep a zebra?")


def test_a_question_about_something_else_brings_nothing() -> None:
    assert library(book=LONG).into([SYSTEM], [ask("What is your name?")])[-1] == ask("What is your name?")


def test_only_the_open_question_is_changed_and_stays_so_while_tools_work() -> None:
    files = library(book=LONG)
    asked = ask("When are invoices paid?")
    answered = [asked, {"role": "assistant", "content": "In March."}]
    assert files.into([], answered)[-2] == asked
    tool = {"role": "assistant", "tool_calls": [{"id": "1"}], "content": None}
    working = files.into([], [asked, tool, {"role": "tool", "tool_call_id": "1", "content": "x"}])
    assert "March" in working[2]["content"]


def test_prompts_stay_within_what_a_small_model_reads() -> None:
    files = library(one="a " * 500, two=LONG, three="b " * 40_000)
    prompt = files.into([], [ask("When are invoices paid, and where is the zebra of chapter two?")])
    assert sum(len(str(message["content"])) for message in prompt) < 3200
    none = Library(0)
    none.add(Document("x.txt", "text/plain", 5, "secret"))
    assert "secret" not in str(none.into([], [ask("Hello?")]))


def test_a_picture_is_an_image_part() -> None:
    files = library(note="Short.")
    files.add(Document("cat.png", "image/png", 9, picture="data:image/png;base64,AAAA"))
    parts = files.into([], [ask("What is it?")])[0]["content"]
    assert parts[0]["type"] == "text"
    assert "cat.png" in parts[0]["text"]
    assert parts[1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_a_file_of_the_same_name_replaces() -> None:
    files = library(note="Old.")
    files.add(Document("note.txt", "text/plain", 4, "New."))
    assert files.names == ["note.txt"]
    assert "Old." not in str(files.into([], [ask("?")]))


def test_a_model_reads_by_question_or_part_by_part() -> None:
    files = library(book=LONG)
    assert "northern stable" in files.read("BOOK.txt", "zebra")
    first, second = files.read("book.txt"), files.read("", part=2)
    assert first.startswith("book.txt, part 1 of")
    assert LONG[:PART] in first
    assert LONG[PART : PART + 50] in second
    assert "There are: book.txt" in files.read("other.txt")
    assert Library().read("x") == "The caller has sent no file."


def test_another_replica_has_the_files_again_within_bounds() -> None:
    files = library(old="o" * KEPT_BYTES, note="ä" * 1000)
    files.add(Document("cat.png", "image/png", 9, picture="data:" + "A" * KEPT_BYTES))
    kept = files.json()
    assert len(str(kept).encode()) < KEPT_BYTES + 2000
    again = Library()
    again.restore(kept)
    assert again.names == ["old.txt", "note.txt", "cat.png"]
    assert "ä" * 1000 in str(again.into([], [ask("?")]))
    assert "cannot see any more" in str(again.into([], [ask("?")]))
    assert "not here any more" in str(again.into([], [ask("?")]))


@pytest.mark.parametrize("text", [LONG, "x" * 5000, "One. " * 1000, "row\n" * 3000, ""])
def test_chunks_hold_everything_and_are_bounded(text: str) -> None:
    chunks = cut(text)
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    assert "".join("".join(chunks).split()) == "".join(text.split())


def test_words_are_compared_without_endings_and_fillers() -> None:
    assert words("What does the REPORT say about invoices?") == ["report", "invoic"]
    assert words("the invoice of 2024") == ["invoic", "2024"]
