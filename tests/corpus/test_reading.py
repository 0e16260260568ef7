import json
from pathlib import Path

import pytest

from engine.corpus.reading import Document, content_of, documents
from engine.errors import TextError
from engine.models.texts import bundled
from tests.families import tiny_tokenizer

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}\n"
TALK = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


def read(choice: object, template: str | None = None) -> list[Document]:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return list(documents(str(choice), tokenizer))


def written(folder: Path, name: str, *lines: object) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree\n", ["one\ntwo", "three"]),
        ("\n\none\ntwo\n \n\n\nthree", ["one\ntwo", "three"]),
        ("one\ntwo\nthree\n", ["one", "two", "three"]),
        ("one\r\ntwo\r\n\r\nthree\r\n", ["one\ntwo", "three"]),
        ("\ufeffone\ntwo\n\n", ["one", "two"]),  # a blank line at the end separates nothing
        ("한국어 하나\n\n둘", ["한국어 하나", "둘"]),
    ],
)
def test_blank_lines_separate_documents_and_without_any_each_line_is_one(text: str, expected: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode())
    assert read(file) == [Document(one) for one in expected]


def test_records_hold_text_or_messages_and_may_name_a_domain(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", {"text": "one"}, "", {"text": "two", "domain": "news"}, {"text": " "}, {"messages": TALK})
    assert read(file, TEMPLATE) == [
        Document("one"),
        Document("two", "news"),
        Document("<user>Hello?</s><assistant>Hello.</s>", templated=True),
    ]


def test_a_folder_is_its_files_in_order_and_its_sub_folders_are_domains(tmp_path: Path) -> None:
    written(tmp_path, "b.txt", "second")
    written(tmp_path, "a.jsonl", {"text": "first"})
    assert read(tmp_path) == [Document("first"), Document("second")]
    written(tmp_path, "code/deep/c.txt", "third")
    written(tmp_path, "web/d.jsonl", {"text": "fourth"}, {"text": "fifth", "domain": "own"})
    written(tmp_path, ".hidden/e.txt", "nobody reads this")
    written(tmp_path, "notes.md", "nor this")
    assert read(tmp_path)[2:] == [Document("third", "code"), Document("fourth", "web"), Document("fifth", "own")]


def test_the_bundled_practice_texts_are_documents_but_for_those_that_costs_are_measured_on() -> None:
    assert [one.text for one in read("english")] == list(bundled("english", "practice").texts[8:])
    assert read("practice") == read("english") + read("korean")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b" \n\n", "contains no training text"),
        ("a.txt", b"one\ntwo\n\xe9\n", "is not UTF-8 (line 3)"),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', "line 2 is not valid JSON"),
        ("a.jsonl", b'["one"]\n', "line 1 has neither the field text nor the field messages"),
        ("a.jsonl", b'{"body": "one"}\n', "line 1 has neither the field text nor the field messages"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": "one"}]}\n', "no chat template"),
        ("a.pdf", b"one", "one of .txt, .jsonl, .parquet"),
        ("folder/a.pdf", b"one", "contains no file of type"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(TextError) as told:
        read(file.parent if "/" in name else file)
    assert expected in str(told.value)
    assert "\n" not in str(told.value)


def test_messages_that_the_template_refuses_are_told(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", {"messages": TALK})
    with pytest.raises(TextError, match="line 1 contains messages that the chat template rejects: one at a time"):
        read(file, "{{ raise_exception('one at a time') }}")


@pytest.mark.parametrize("choice", ["nowhere.txt", "hub:alone"])
def test_what_is_not_there_is_refused(choice: str) -> None:
    with pytest.raises(TextError):
        read(choice)


def test_what_is_read_is_known_by_its_content(tmp_path: Path) -> None:
    first, second = written(tmp_path, "a.txt", "one", "two"), written(tmp_path, "b.txt", "one", "two")
    assert content_of(str(first)) == content_of(str(second)) != content_of(str(written(tmp_path, "c.txt", "one")))
    assert content_of("english") != content_of("korean")
    assert content_of("hub:a/b") != content_of("hub:a/c")
